# The image of the operator: `python -m kubesae_operator`, the parts of kubesae that it reads the store with, no torch.
#
#   docker build -f images/operator.Dockerfile -t kubesae-operator .
#
# Arguments, secrets (an index of your own, its CA) and what lies where in the image: docs/images.md

# Name the base by digest (`--build-arg BASE_IMAGE=python@sha256:...`) where a later build must have the same files.
ARG BASE_IMAGE=docker.io/library/python:3.12-slim-bookworm
FROM ${BASE_IMAGE}

# Pods have a read-only root, so everything is compiled while the image is built.
ENV PATH=/opt/kubesae/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONDONTWRITEBYTECODE=1 PYTHONSAFEPATH=1 PYTHONUNBUFFERED=1
# A user with a name, because libraries ask for one. /opt/kubesae/app is where the code will be.
RUN set -eu; \
    echo 'kubesae:x:10001:' >>/etc/group; \
    echo 'kubesae:x:10001:10001::/tmp:/usr/sbin/nologin' >>/etc/passwd; \
    python3 -m venv --without-pip /opt/kubesae; \
    site=$(python -c 'import sysconfig; print(sysconfig.get_path("purelib"))'); \
    echo /opt/kubesae/app >"$site/kubesae.pth"

# Dependencies: the lock's, by hash, in one layer that a change of code leaves alone; without those of the command line,
# which the operator never imports, and without the Kubernetes client's second half, for asyncio: together they are as
# large as all the rest.
COPY requirements/operator.txt /opt/kubesae/requirements.txt
RUN --mount=type=secret,id=pip_conf --mount=type=secret,id=ca \
    --mount=type=cache,target=/var/cache/kubesae-pip,sharing=locked \
    set -eu; \
    left_out='^(numpy|rich|pygments|markdown-it-py|mdurl)=='; \
    export PIP_CONFIG_FILE=/run/secrets/pip_conf PIP_CACHE_DIR=/var/cache/kubesae-pip PIP_DISABLE_PIP_VERSION_CHECK=1; \
    python3 -m venv /tmp/pip; \
    awk -v left_out="$left_out" '/^[^ ]/ { keep = ($0 !~ left_out) } keep' /opt/kubesae/requirements.txt >/tmp/wanted; \
    /tmp/pip/bin/pip --python /opt/kubesae/bin/python install --no-deps --no-compile --quiet --require-hashes \
        -r /tmp/wanted; \
    rm -rf /tmp/pip /tmp/wanted /opt/kubesae/lib/python3*/site-packages/kubernetes/aio; \
    python -m compileall -q -j 0 --invalidation-mode unchecked-hash /opt/kubesae/lib \
        || echo 'Files for other Pythons do not compile; nothing imports them.'

# The code. Nothing is written while it runs.
ENV HOME=/tmp
COPY LICENSE images/sbom.py /opt/kubesae/
COPY jobs/kubesae /opt/kubesae/app/kubesae
COPY operator/kubesae_operator /opt/kubesae/app/kubesae_operator
ARG VERSION=0.1.0
RUN set -eu; \
    chmod -R a+rX,go-w /opt/kubesae/app; \
    python -m compileall -q --invalidation-mode unchecked-hash /opt/kubesae/app; \
    python /opt/kubesae/sbom.py kubesae-operator "$VERSION" >/opt/kubesae/sbom.cdx.json

ARG BASE_IMAGE
ARG REVISION=
ARG SOURCE=
LABEL org.opencontainers.image.title="kubesae-operator" \
      org.opencontainers.image.description="Sparse autoencoders of a language model, as batch work: the operator" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.source="${SOURCE}" \
      org.opencontainers.image.base.name="${BASE_IMAGE}" \
      org.opencontainers.image.licenses="Apache-2.0"
USER 10001:10001
WORKDIR /tmp
ENTRYPOINT ["python", "-m", "kubesae_operator"]
