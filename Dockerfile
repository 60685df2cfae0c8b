# A machine with a CUDA device: the locked set, whose torch brings CUDA along, and the package. The driver is the host's,
# through the NVIDIA container toolkit. docs/containers.md has the command.
FROM python:3.11-slim-bookworm

# Compiled steps, and triton, call a compiler as they run; git names the revision of a checkout that is mounted.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ git \
    && rm -rf /var/lib/apt/lists/*

# The large layer, which changes with the lock alone.
COPY requirements-locked.txt /opt/pggan_kit/
RUN pip install --no-cache-dir --require-hashes --requirement /opt/pggan_kit/requirements-locked.txt

COPY setup.cfg pyproject.toml README.md LICENSE /opt/pggan_kit/
COPY pggan_kit /opt/pggan_kit/pggan_kit
COPY plugins /opt/pggan_kit/plugins
RUN pip install --no-cache-dir --no-deps --no-build-isolation /opt/pggan_kit
COPY experiments /opt/pggan_kit/experiments

# Whoever runs it, by `--user`: the cache and the runs are in the folder that is mounted here.
ENV HOME=/work
WORKDIR /work
USER 1000:1000
ENTRYPOINT ["pggan-kit"]
CMD ["--help"]
