# The tracker with its embedded store, in an image without a shell: two files, a configuration and a
# folder for data. Everything it writes is below /var/lib/tracker, so the rest may be read-only.
#
#   docker build -t tracker .
#   docker run --read-only -p 8080:8080 -v tracker:/var/lib/tracker tracker

FROM rust:1.95-bookworm AS build
# npm fetches the pinned DuckDB library; without it DuckDB is built from source, which takes long.
RUN apt-get update \
    && apt-get install -y --no-install-recommends npm=9.* \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
ENV XDG_CACHE_HOME=/cache CARGO_TARGET_DIR=/cache/target
SHELL ["/bin/sh", "-eu", "-c"]
# The features are words of a list, and come from the file read before.
# hadolint ignore=SC2086,SC2154
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/cache \
    . .ci/duckdb; \
    cargo build --profile dist --locked --bin tracker ${features}; \
    mkdir -p /out/app /out/data; \
    cp /cache/target/dist/tracker /out/app/; \
    find "${DUCKDB_LIB_DIR:-/cache/target/dist/deps}" -name 'libduckdb.so' -exec cp {} /out/app/ \;

FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /out/app/ /app/
COPY --from=build --chown=nonroot:nonroot /out/data/ /var/lib/tracker/
COPY .ci/container.json /etc/tracker/config.json
# nonroot, as a number, so that an orchestrator can see that it is not root.
USER 65532:65532
WORKDIR /var/lib/tracker
VOLUME ["/var/lib/tracker"]
EXPOSE 8080 8443
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s --retries=3 \
    CMD ["/app/tracker", "doctor", "--health", "--config", "/etc/tracker/config.json"]
ENTRYPOINT ["/app/tracker"]
CMD ["/etc/tracker/config.json"]
