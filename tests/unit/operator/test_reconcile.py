"""The decision, over every situation that can be thought of: what is released, stopped, written and told."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubesae.ledger import PHASES, TrainPoint
from kubesae_operator.api import CONDITIONS, Problem
from kubesae_operator.bucket import SaeProgress
from kubesae_operator.crd import definition
from kubesae_operator.reconcile import MOST_BYTES, reconcile
from observed import DATA, NAMESPACE, collection, ended, experiment, job, observed, pod, running, view

STATUS = definition()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["status"]


@st.composite
def jobs_of(draw, phase, odd):
    """Up to two generations of each of a phase's Jobs, in any state; `odd` draws whether something unusual is so."""
    found = []
    saes = ["a", "b"] if phase in ("train", "interpret") else [""]
    for sae in [] if draw(odd) else saes:
        for number in (1, 2) if draw(odd) else (1,):
            made = draw(st.sampled_from([job, running, ended, lambda *a, **b: ended(a[0], "Failed", **b)]))
            found.append(
                replace(
                    made(phase, sae=sae, number=number),
                    held=draw(odd),
                    deleting=draw(odd),
                    queue="q" if draw(odd) else "",
                )
            )
    return found


@st.composite
def situations(draw):
    """An experiment of any phases, some of them complete, with Jobs in any state; in half of them nothing is odd."""
    odd = st.sampled_from(draw(st.sampled_from([[False], [False, False, False, True]])))
    phases = tuple(phase for phase in PHASES if draw(st.booleans())) or ("collect",)
    done = draw(st.integers(0, len(phases)))
    look = view(
        *[phase for place, phase in enumerate(phases) if (place < done) != draw(odd)],
        mismatch="layers differ" if draw(odd) else "",
        saes=tuple(SaeProgress(name, draw(st.booleans()), draw(st.booleans())) for name in ("a", "b")),
    )
    return observed(
        [item for phase in PHASES for item in draw(jobs_of(phase, odd))],
        experiment=experiment(phases=phases, suspend=draw(odd), queue=draw(st.sampled_from(["", "q"]))),
        view=None if draw(odd) else look,
        problem=Problem("StoreUnreachable", "no answer") if draw(odd) else None,
        rival=((NAMESPACE, "other"), draw(st.booleans())) if draw(odd) else None,
    )


def newest(seen, phase):
    found = {}
    for item in sorted(seen.jobs, key=lambda item: item.created):
        if item.phase == phase and not item.deleting:
            found[item.sae] = item
    return list(found.values())


def complete(seen):
    """The enabled phases that have nothing left to do, said in another way than the code under test does."""
    done = set(seen.view.complete) if seen.view else set()
    writers = {"prepare", "pilot", "collect"} & set(seen.experiment.phases)
    if any(item.ended == "Complete" for item in newest(seen, "fetch")) or (writers and writers <= done):
        done.add("fetch")
    return done


def released(seen, patch):
    return bool(patch.queue) or patch.suspend is False


def after(seen, actions):
    """What would be observed once the actions are carried out."""
    jobs = {item.uid: item for item in seen.jobs}
    for patch in actions.patches:
        item = jobs[patch.job.uid]
        jobs[item.uid] = replace(
            item,
            suspended=item.suspended if patch.suspend is None else patch.suspend,
            queue=item.queue if patch.queue is None else patch.queue,
        )
    status = seen.experiment.status if actions.status is None else json.loads(json.dumps(actions.status))
    return replace(seen, jobs=tuple(jobs.values()), experiment=replace(seen.experiment, status=status))


@given(situations())
def test_no_phase_is_released_before_those_before_it_are_complete(seen):
    done, phases = complete(seen), seen.experiment.phases
    for patch in reconcile(seen).patches:
        if released(seen, patch):
            assert set(phases[: phases.index(patch.job.phase)]) <= done
            assert patch.job.phase not in done
            assert patch.job in newest(seen, patch.job.phase)
            assert (patch.job.ended, patch.job.held, patch.job.deleting) == ("", False, False)


@given(situations())
def test_nothing_is_released_on_a_guess_or_against_somebody(seen):
    known = seen.view is not None and not seen.view.mismatch and seen.problem is None
    for patch in reconcile(seen).patches:
        if released(seen, patch):
            assert known
            assert not seen.experiment.suspend
            assert not (seen.rival and seen.rival[1] and patch.job.phase in {"prepare", "pilot", "collect"})


@given(situations())
def test_what_is_due_is_released(seen):
    done = complete(seen)
    due = next((phase for phase in seen.experiment.phases if phase not in done), None)
    hindered = seen.view is None or seen.view.mismatch or seen.problem or seen.experiment.suspend or seen.rival
    if due is None or hindered:
        return
    saes = {sae.name: sae.trained if due == "train" else sae.interpreted for sae in seen.view.saes}
    expected = {
        item.uid
        for item in newest(seen, due)
        if item.suspended
        and not (item.held or item.ended or saes.get(item.sae) or (item.queue and seen.experiment.queue))
    }
    assert {patch.job.uid for patch in reconcile(seen).patches if released(seen, patch)} == expected


@given(situations())
def test_with_a_queue_jobs_are_given_to_it_and_without_one_they_are_started(seen):
    for patch in reconcile(seen).patches:
        if released(seen, patch):
            queue = seen.experiment.queue
            assert (patch.suspend, patch.queue) == ((None, queue) if queue else (False, None))


@given(situations())
def test_a_suspended_experiment_and_a_held_job_stand_still(seen):
    for item in after(seen, reconcile(seen)).jobs:
        if (seen.experiment.suspend or item.held) and not item.ended and not item.deleting:
            assert item.suspended
            assert not item.queue


@given(situations())
def test_what_is_done_is_not_done_again(seen):
    first = after(seen, reconcile(seen))  # Jobs are changed
    again = reconcile(first)
    assert again.patches == ()
    second = reconcile(after(first, again))
    assert (second.patches, second.status, second.events) == ((), None, ())


@given(situations())
def test_no_job_is_started_and_stopped_at_once(seen):
    patched = [patch.job.uid for patch in reconcile(seen).patches]
    assert len(patched) == len(set(patched))


@given(situations())
def test_the_status_is_what_the_api_takes(seen):
    status = reconcile(seen).status
    assert misfits(status, STATUS) == []
    assert [item["type"] for item in status["conditions"]] == list(CONDITIONS)
    assert [item["name"] for item in status["phases"]] == list(seen.experiment.phases)


TYPES = {"object": dict, "array": list, "string": str, "integer": int, "boolean": bool}


def misfits(value, schema, where="status"):
    """What of a value the API would refuse, or drop because the schema does not name it."""
    if not isinstance(value, TYPES[schema["type"]]) or value not in schema.get("enum", [value]):
        return [f"{where}: {value!r}"]
    found = [f"{where}.{name} is missing" for name in schema.get("required", ()) if name not in value]
    for name, inner in value.items() if isinstance(value, dict) else ():
        known = schema["properties"].get(name)
        found += misfits(inner, known, f"{where}.{name}") if known else [f"{where}.{name} is unknown"]
    for number, inner in enumerate(value) if isinstance(value, list) else ():
        found += misfits(inner, schema["items"], f"{where}[{number}]")
    return found


def size(status):
    return len(json.dumps(status, ensure_ascii=False, separators=(",", ":")).encode())


@pytest.mark.parametrize("words", ["a plain line ", "这是一个错误消息 ", "😀", "\x01"])
@pytest.mark.parametrize("shards", [1, 8, 32, 33, 1000])
def test_the_status_is_small_however_many_shards_and_however_long_the_messages(shards, words):
    words *= 1000
    look = view(
        "prepare",
        collection=collection([3] * shards, parts=1000 if shards < 100 else 5),
        next_parts=(999_999,) * shards,
        mismatch=words,
        saes=(SaeProgress("s" * 63, step=10**9, point=TrainPoint(10**9, 3, 123.456, 9999.5)),),
    )
    jobs = [running(phase) for phase in PHASES[:3]] + [ended("collect", "Failed", message=words, number=2)]
    pods = [pod("pilot", index=index, restarts=99, trouble=("Unschedulable", words)) for index in range(shards)]
    status = reconcile(observed(jobs, pods, view=look)).status
    assert size(status) <= MOST_BYTES
    assert status["tokens"] == shards * 300
    assert len(status["resume"]) < 160
    assert misfits(status, STATUS) == []


def test_rows_of_shards_are_kept_as_long_as_they_fit():
    quiet = reconcile(observed(view=view(collection=collection([3] * 32), next_parts=(3,) * 32))).status
    assert len(quiet["shardRows"]) == 32
    assert (
        "shardRows" not in reconcile(observed(view=view(collection=collection([3] * 33), next_parts=(3,) * 33))).status
    )


def test_when_nothing_changes_nothing_is_written_or_told():
    seen = observed([running("prepare")], view=view(collection=collection([1, 2]), next_parts=(1, 2)))
    first = reconcile(seen)
    assert first.status
    assert first.events
    later = after(seen, first)
    for seconds in (1, 60, 3600):
        assert reconcile(replace(later, now=later.now.replace(hour=13, second=seconds % 60))) == replace(
            first, patches=(), status=None, events=()
        )


def test_a_condition_keeps_its_time_until_it_turns():
    seen = observed([job("prepare")])
    first = reconcile(seen).status
    later = replace(
        after(seen, reconcile(seen)), now=seen.now.replace(hour=14), problem=Problem("StoreUnreachable", "x")
    )
    second = reconcile(later).status
    for old, new in zip(first["conditions"], second["conditions"], strict=True):
        assert new["observedGeneration"] == 1
        assert (old["lastTransitionTime"] == new["lastTransitionTime"]) == (old["status"] == new["status"])
    assert [c["type"] for c in second["conditions"] if c["lastTransitionTime"].startswith("2026-05-01T14")] == ["Ready"]


def test_a_whole_run_is_released_step_by_step_and_told_once():
    seen = observed([job(phase) for phase in PHASES[1:]])
    order, events, words = [], [], []
    for _ in range(60):
        actions = reconcile(seen)
        order += [patch.job.phase for patch in actions.patches]
        events += [(event.reason, event.note, event.warning) for event in actions.events]
        seen = after(seen, actions)
        words += [actions.status["phase"]] if actions.status else []
        if actions.patches or actions.status:
            continue
        at_work = [item for item in seen.jobs if not item.suspended and not item.ended]
        if not at_work:
            break
        done = at_work[0].phase  # it ends, and the store shows what it made
        ends = ended(done)
        jobs = tuple(ends if item.phase == done else item for item in seen.jobs)
        seen = replace(seen, jobs=jobs, view=view(*seen.view.complete, done))
    assert order == list(PHASES[1:])
    told = [(f"Phase{what}", f"{phase} {how}.", False) for phase in PHASES[1:] for what, how in STEPS]
    assert sorted(events) == sorted([*told, ("Complete", "Every phase is complete.", False)])
    assert list(dict.fromkeys(words)) == [
        *("Pending", "Preparing", "Piloting", "Collecting", "Verifying", "Training", "Interpreting"),
        "Complete",
    ]


STEPS = (("Started", "has started"), ("Complete", "is complete"))


def test_what_was_complete_before_there_was_an_operator_is_not_told_as_news():
    assert [event.reason for event in reconcile(observed(view=view(*PHASES[1:]))).events] == ["Complete"]


def test_suspending_and_going_on_are_told():
    seen = observed([running("prepare")])
    seen = after(seen, reconcile(seen))
    stopped = replace(seen, experiment=replace(seen.experiment, suspend=True, generation=2))
    actions = reconcile(stopped)
    assert [(patch.job.phase, patch.suspend) for patch in actions.patches] == [("prepare", True)]
    assert actions.status["phase"] == "Suspended"
    assert [(event.reason, event.warning) for event in actions.events] == [("Suspended", False)]
    stopped = after(stopped, actions)
    going = replace(stopped, experiment=replace(stopped.experiment, suspend=False, generation=3))
    assert [event.reason for event in reconcile(going).events] == ["Resumed"]
    assert [patch.suspend for patch in reconcile(going).patches] == [False]
    assert reconcile(going).status["observedGeneration"] == 3


def test_a_trouble_is_told_when_it_comes_and_when_it_becomes_another():
    def seen_with(problem, status):
        return observed(experiment=experiment(status=status), problem=problem, view=None)

    first = reconcile(seen_with(Problem("BucketMissing", "There is none."), {}))
    assert [(e.reason, e.note, e.warning) for e in first.events] == [("BucketMissing", "There is none.", True)]
    reworded = reconcile(seen_with(Problem("BucketMissing", "There is still none."), first.status))
    assert reworded.status["conditions"][0]["message"] == "There is still none."
    assert reworded.events == ()
    other = reconcile(seen_with(Problem("AccessDenied", "No."), first.status))
    assert [event.reason for event in other.events] == ["AccessDenied"]
    gone = reconcile(observed([job("prepare")], experiment=experiment(status=other.status)))
    assert not [event for event in gone.events if event.warning]


def test_until_the_store_is_read_again_the_status_keeps_what_it_showed():
    seen = observed(
        [running("collect")], view=view("prepare", "pilot", collection=collection([2, 4]), next_parts=(2, 4))
    )
    shown = reconcile(seen).status
    blind = after(seen, reconcile(seen))
    kept = reconcile(replace(blind, view=None, problem=Problem("StoreUnreachable", "no answer"))).status
    for name in ("phase", "phases", "tokens", "progress", "resume", "shardRows", "percent", "eta", "rate"):
        assert kept[name] == shown[name]
    failed = reconcile(replace(blind, view=None, problem=Problem("InvalidExperiment", "no layers"))).status
    assert failed["phase"] == "Failed"


def test_the_data_of_another_experiment_are_left_alone():
    message = f"The data at {DATA} has other layers. Give another `data`."
    actions = reconcile(observed([job("prepare")], view=view(mismatch=message)))
    assert actions.patches == ()
    assert actions.status["phase"] == "Failed"
    said = {item["type"]: (item["status"], item["reason"], item["message"]) for item in actions.status["conditions"]}
    assert said["Failed"] == ("True", "IdentityMismatch", message)
    assert said["Ready"] == ("False", "IdentityMismatch", message)
