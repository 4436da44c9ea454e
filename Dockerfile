# Tagtrail: one image for every service. Nobody is root in it, and there is no shell.
#
#   docker build -t tagtrail .
#   docker run --rm tagtrail --help

FROM rust:1.95.0-bookworm AS build
# The image's own toolchain, whatever rust-toolchain.toml would fetch.
ENV RUSTUP_TOOLCHAIN=1.95.0
WORKDIR /src
COPY . .
# Built with the committed versions, and nothing is kept but the program.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --release --locked --package tagtrail \
    && cp target/release/tagtrail /usr/local/bin/tagtrail

FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /usr/local/bin/tagtrail /usr/local/bin/tagtrail
COPY LICENSE /usr/share/doc/tagtrail/LICENSE
# In a container nobody but the network can reach a service. The api still takes tokens for that (tagtrail.toml).
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
