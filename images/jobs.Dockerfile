# The image of every Pod that does an experiment's work: `kubesae` and all that it runs on.
#
#   docker build -f images/jobs.Dockerfile -t kubesae-jobs .
#
# Arguments, secrets (an index of your own, its CA) and what lies where in the image: docs/images.md

# Name the base by digest (`--build-arg BASE_IMAGE=python@sha256:...`) where a later build must have the same files.
ARG BASE_IMAGE=docker.io/library/python:3.12-slim-bookworm
# What the stage with the compilers is made from: it has g++ and the headers of the same Python, or apt-get gets them.
ARG COMPILER_IMAGE=${BASE_IMAGE}
#   VARIANT      cuda: all of it. cpu: without triton, which compiles kernels for GPUs.
ARG VARIANT=cuda

FROM ${BASE_IMAGE} AS dependencies
# Pods have a read-only root, so everything is compiled while the image is built.
ENV PATH=/opt/kubesae/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONDONTWRITEBYTECODE=1 PYTHONSAFEPATH=1 PYTHONUNBUFFERED=1
# A user with a name, because libraries ask for one. /opt/kubesae/app is where the code will be.
RUN set -eu; \
    echo 'kubesae:x:10001:' >>/etc/group; \
    echo 'kubesae:x:10001:10001::/scratch:/usr/sbin/nologin' >>/etc/passwd; \
    mkdir -m 0770 /scratch; chown 10001:10001 /scratch; \
    python3 -m venv --without-pip /opt/kubesae; \
    site=$(python -c 'import sysconfig; print(sysconfig.get_path("purelib"))'); \
    echo /opt/kubesae/app >"$site/kubesae.pth"; \
    ln -s "$(python -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')" /opt/kubesae/stdlib

# Dependencies: the lock's, by hash, in one layer that a change of code leaves alone.
#   TORCH_INDEX  (cpu only) an index of CPU builds of torch, which need none of the CUDA libraries. That torch has the
#                locked version but not the locked hash: the lock knows PyPI's builds alone.
ARG VARIANT
ARG TORCH_INDEX=
COPY requirements/batch.txt /opt/kubesae/requirements.txt
RUN --mount=type=secret,id=pip_conf --mount=type=secret,id=ca \
    --mount=type=cache,target=/var/cache/kubesae-pip,sharing=locked \
    set -eu; \
    case "$VARIANT/$TORCH_INDEX" in \
        cuda/) left_out='^$' ;; \
        cpu/) left_out='^triton==' ;; \
        cpu/*) left_out='^(torch|triton|nvidia-[a-z0-9-]+|cuda-[a-z]+)==' ;; \
        cuda/*) echo "TORCH_INDEX is for VARIANT=cpu: the CUDA libraries locked here are those of PyPI's torch." >&2; exit 2 ;; \
        *) echo "VARIANT is '$VARIANT'; say cuda or cpu." >&2; exit 2 ;; \
    esac; \
    export PIP_CONFIG_FILE=/run/secrets/pip_conf PIP_CACHE_DIR=/var/cache/kubesae-pip PIP_DISABLE_PIP_VERSION_CHECK=1; \
    python3 -m venv /tmp/pip; \
    pip() { /tmp/pip/bin/pip --python /opt/kubesae/bin/python install --no-deps --no-compile --quiet "$@"; }; \
    awk -v left_out="$left_out" '/^[^ ]/ { keep = ($0 !~ left_out) } keep' /opt/kubesae/requirements.txt >/tmp/wanted; \
    pip --require-hashes -r /tmp/wanted; \
    if [ -n "$TORCH_INDEX" ]; then \
        pip --index-url "$TORCH_INDEX" "$(grep -o '^torch==[^ ]*' /opt/kubesae/requirements.txt)"; \
    fi; \
    rm -rf /tmp/pip /tmp/wanted; \
    python -m compileall -q -j 0 --invalidation-mode unchecked-hash /opt/kubesae/lib \
        || echo 'Files for other Pythons do not compile; nothing imports them.'

# The compiled part: kernels for CPUs, and the C that triton would compile before its first kernel. The compilers stay
# behind in their stage.
FROM ${COMPILER_IMAGE} AS compiler
RUN set -eu; \
    export PATH="$PATH:/usr/sbin:/sbin" DEBIAN_FRONTEND=noninteractive; \
    set --; \
    command -v g++ >/dev/null || set -- g++; \
    headers=$(python3 -c 'import sysconfig; print(sysconfig.get_path("include", "posix_prefix"))'); \
    [ -e "$headers/Python.h" ] || set -- "$@" python3-dev; \
    if [ "$#" != 0 ]; then \
        apt-get update -qq; \
        apt-get install -qq -y --no-install-recommends "$@" >/dev/null; \
    fi

FROM compiler AS compiled
COPY jobs/kubesae/sae/native /native
RUN python3 /native/build.py /compiled/native
COPY jobs/kubesae/sae/gpu/prebuilt.py /gpu/
# what is mounted next depends on these two; not every builder sees that by itself
COPY --from=dependencies /opt/kubesae/requirements.txt /gpu/
ARG VARIANT
RUN --mount=type=bind,from=dependencies,source=/opt/kubesae/lib,target=/lib-of-variant \
    echo "VARIANT=$VARIANT"; \
    python3 /gpu/prebuilt.py /lib-of-variant /compiled/gpu

# The code. What is written while it runs goes to /scratch, which Pods mount.
FROM dependencies
ENV HOME=/scratch TMPDIR=/scratch HF_HOME=/scratch/hf
COPY images/kubesae /opt/kubesae/bin/
COPY LICENSE images/sbom.py /opt/kubesae/
COPY jobs/kubesae /opt/kubesae/app/kubesae
COPY --from=compiled /compiled /opt/kubesae/app/kubesae/sae
ARG VERSION=0.1.0
RUN set -eu; \
    chmod -R a+rX,go-w /opt/kubesae/app /opt/kubesae/bin/kubesae; \
    python -m compileall -q --invalidation-mode unchecked-hash /opt/kubesae/app; \
    python /opt/kubesae/sbom.py kubesae-jobs "$VERSION" >/opt/kubesae/sbom.cdx.json

ARG BASE_IMAGE
ARG VARIANT
ARG REVISION=
ARG SOURCE=
LABEL org.opencontainers.image.title="kubesae-jobs" \
      org.opencontainers.image.description="Sparse autoencoders of a language model, as batch work: the programs" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.source="${SOURCE}" \
      org.opencontainers.image.base.name="${BASE_IMAGE}" \
      org.opencontainers.image.licenses="Apache-2.0" \
      dev.kubesae.variant="${VARIANT}"
USER 10001:10001
WORKDIR /scratch
ENTRYPOINT ["kubesae"]
CMD ["--help"]
