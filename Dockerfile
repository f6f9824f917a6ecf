# The two images. They hold the binary, what it is linked with, and nothing else: no shell, no package manager.
#
#     docker build --target daemon  -t ferritelabs/ferrite:0.1.0 .
#     docker build --target webhook -t ferritelabs/ferrite-webhook:0.1.0 .
#
# BINARIES: an image that has /out/ferrite and /out/ferritectl already, in place of the stage that builds them.
ARG SWIFT_IMAGE=docker.io/library/swift:6.3-bookworm
ARG BINARIES=build

FROM ${SWIFT_IMAGE} AS build
RUN apt-get update \
    && apt-get install -y --no-install-recommends libjemalloc-dev libssl-dev liburing-dev \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
RUN swift build -c release --static-swift-stdlib --product ferrite \
    && swift build -c release --static-swift-stdlib --product ferritectl \
    && mkdir /out \
    && strip -o /out/ferrite .build/release/ferrite \
    && strip -o /out/ferritectl .build/release/ferritectl

FROM ${BINARIES} AS roots
COPY deploy/images/root /usr/local/bin/root
RUN root /out/ferrite /roots/daemon && root /out/ferritectl /roots/webhook

FROM scratch AS daemon
COPY --from=roots /roots/daemon /
COPY --from=roots /out/ferrite /usr/local/bin/ferrite
USER 1000:1000
EXPOSE 6379 9091
ENTRYPOINT ["/usr/local/bin/ferrite"]

FROM scratch AS webhook
COPY --from=roots /roots/webhook /
COPY --from=roots /out/ferritectl /usr/local/bin/ferritectl
USER 1000:1000
EXPOSE 8443 8080
ENTRYPOINT ["/usr/local/bin/ferritectl"]
