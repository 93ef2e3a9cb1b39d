# The image of coxswain: one static executable, which runs as the controller, and which the init container copies to
# where a stock proxy's container starts it as its agent. hack/image makes the same without a container engine.
FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY . .
# Static: the proxy's container may have any libc or none. --target keeps the flags away from build scripts and macros.
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/src/target \
    PCRE2_SYS_STATIC=1 RUSTFLAGS="-C target-feature=+crt-static" \
    cargo build --locked --release --target "$(uname -m)-unknown-linux-gnu" --bin coxswain && \
    install -m 755 target/*-unknown-linux-gnu/release/coxswain /coxswain

FROM scratch
COPY --from=build /coxswain /coxswain
USER 101:101
ENTRYPOINT ["/coxswain"]
