# The gateway as an image: its program, the glibc that it was linked against, an empty /data, nothing else.
#
#   docker build -t quota-proxy .
#   docker run --rm -p 8787:8787 quota-proxy --demo
#
# docs/deploy/docker.md says how to run it, docs/decisions/0008-image.md why it is built so.

ARG RUST_IMAGE=rust:1.95-bookworm

FROM ${RUST_IMAGE} AS build
WORKDIR /build

# The dependencies, in a layer that changes with these two files only: built for an empty library and
# an empty gateway. Cargo requires the files of all targets to exist.
COPY Cargo.toml Cargo.lock ./
RUN sed -n 's/^path = "\(.*\)"$/\1/p' Cargo.toml | xargs -n 1 install -D /dev/null \
    && mkdir -p src examples/gateway \
    && echo '//! Empty.' > src/lib.rs \
    && printf '//! Empty.\nfn main() {}\n' > examples/gateway/main.rs \
    && cargo build --profile dist --locked --example gateway

# The sources keep their times, which may be older than the empty ones: the touch makes them newer.
COPY src src
COPY examples/gateway examples/gateway
RUN touch src/lib.rs examples/gateway/main.rs \
    && cargo build --profile dist --locked --example gateway

# The program, the libraries that it names with their loader, today's time zones, and where names of hosts are
# looked up.
RUN install -D target/dist/examples/gateway /image/usr/local/bin/gateway \
    && ldd /image/usr/local/bin/gateway | grep -o '/[^ ]*' | xargs cp --dereference --parents --target-directory /image \
    && cp --recursive --parents /usr/share/zoneinfo /image \
    && rm -rf /image/usr/share/zoneinfo/posix /image/usr/share/zoneinfo/right \
    && mkdir -p /image/etc /data \
    && echo 'hosts: files dns' > /image/etc/nsswitch.conf

FROM scratch
COPY --from=build /image /
COPY --from=build --chown=65532:65532 /data /data
ENV HOST=0.0.0.0 PORT=8787 DATABASE_URL=/data/quota.db
WORKDIR /data
# A number, so that Kubernetes can tell that it is not root's.
USER 65532:65532
VOLUME /data
EXPOSE 8787
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s CMD ["gateway", "healthcheck"]
ENTRYPOINT ["gateway"]
