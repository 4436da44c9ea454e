# Tagtrail: one image for all services, without root and without a shell.
#
#   docker build -t tagtrail .
#   docker run --rm tagtrail --help

FROM rust:1.95.0-bookworm AS build
# Use the toolchain of the image: rustup would fetch the one in rust-toolchain.toml again.
ENV RUSTUP_TOOLCHAIN=1.95.0
# Writes the list of all crates into the program, for scanners of vulnerabilities.
RUN cargo install --locked cargo-auditable@0.7.7
WORKDIR /src
COPY . .
# Build with the versions in Cargo.lock. The caches do not become part of the layer.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo auditable build --release --locked --package tagtrail \
    && cp target/release/tagtrail /usr/local/bin/tagtrail \
    && scripts/notices /usr/local/share/NOTICES.txt

# The image for git targets, with the programs that they run: docker build --target git -t tagtrail:git .
FROM debian:bookworm-slim AS git
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates git openssh-client \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 65532 --user-group --no-create-home nonroot
COPY --from=build /usr/local/bin/tagtrail /usr/local/bin/tagtrail
COPY LICENSE /usr/share/doc/tagtrail/LICENSE
COPY --from=build /usr/local/share/NOTICES.txt /usr/share/doc/tagtrail/NOTICES.txt
ENV TAGTRAIL_GATEWAY_LISTEN=0.0.0.0:8400 \
    TAGTRAIL_API_LISTEN=0.0.0.0:8401 \
    TAGTRAIL_ADMIN=0.0.0.0:8402 \
    TAGTRAIL_LOG_FORMAT=json
EXPOSE 8400 8401 8402
USER nonroot
ENTRYPOINT ["/usr/local/bin/tagtrail"]
CMD ["--help"]
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s CMD ["/usr/local/bin/tagtrail", "health"]

FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /usr/local/bin/tagtrail /usr/local/bin/tagtrail
COPY LICENSE /usr/share/doc/tagtrail/LICENSE
# The licences and notices of all crates in the program.
COPY --from=build /usr/local/share/NOTICES.txt /usr/share/doc/tagtrail/NOTICES.txt
# In a container, services must listen on all addresses to be reachable. Protect the api with tokens (tagtrail.toml).
ENV TAGTRAIL_GATEWAY_LISTEN=0.0.0.0:8400 \
    TAGTRAIL_API_LISTEN=0.0.0.0:8401 \
    TAGTRAIL_ADMIN=0.0.0.0:8402 \
    TAGTRAIL_LOG_FORMAT=json
# webhooks, API, admin page (/healthz, /readyz, /metrics)
EXPOSE 8400 8401 8402
USER nonroot
ENTRYPOINT ["/usr/local/bin/tagtrail"]
CMD ["--help"]
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s CMD ["/usr/local/bin/tagtrail", "health"]
