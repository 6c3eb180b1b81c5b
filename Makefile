# What a newcomer types.  Everything real is in scripts/ and CMakeLists.txt.
#
#   make run [MODEL=<dir>] [PORT=8080]   build, start, tell a story, serve until Ctrl-C
#   make test                            build and run every test: release, sanitizers, threads
#   make build | clean | format          release build; remove builds; clang-format
#   make chaos [ROUNDS=130] [SEED=1]     kill processes under load, compare every answer; bench/chaos.csv
#   make chaos-gpu [ROUNDS=40] [SEED=1]  the same on fake GPUs, with faults of theirs; bench/chaos_gpu.csv
#   make chaos-1b [SEED=1]               kill workers of a model of 1 billion parameters; bench/chaos_1b.csv
#   make check-clients                   OpenAI's, Hugging Face's and other client libraries against a server
#   make check-container [FULL=1]        images built and run without an engine; FULL compiles in the image too
#   make check-gpu [FATBINS=OFF]         what can be known of the GPU backend without a GPU, and its rooflines
#   make gpu-verify [REPORT=gpu-verify.json] [DRY_RUN=1]  on a machine with a GPU: the rest, with a report
#   make check-oci                       the OCI kit: the platform's contract, its Makefile, its tools
#   make check-web                       the chat and status pages in a headless Chromium; build/web-screenshots
#   make fuzz [SECONDS=60]               every fuzz target with clang's libFuzzer
#   make deb                             the Debian package, build/deb/llmd_*.deb
#   make check-systemd                   the package installed, used and removed under a real systemd; root only
#   make install [DESTDIR=] [PREFIX=/usr/local]
MODEL   ?= models/stories-demo
PORT    ?= 8080
SECONDS ?= 60
ROUNDS  ?= 130
SEED    ?= 1
PREFIX  ?= /usr/local
DESTDIR ?=
FULL    ?=
REPORT  ?= gpu-verify.json
DRY_RUN ?=
WERROR  ?= OFF
FATBINS ?= ON

.PHONY: build run test chaos chaos-gpu chaos-1b check-clients check-container check-gpu gpu-verify check-oci check-systemd check-web clean deb format fuzz install

build:
	@scripts/packages.sh build
	@scripts/build.sh release programs

run:
	@exec scripts/run.sh '$(MODEL)' '$(PORT)'

test:
	@exec scripts/test.sh '$(WERROR)'

chaos:
	@exec scripts/chaos.sh '$(ROUNDS)' '$(SEED)'

chaos-gpu: ROUNDS = 40
chaos-gpu:
	@exec scripts/chaos.sh '$(ROUNDS)' '$(SEED)' --device cuda --csv bench/chaos_gpu.csv

chaos-1b:
	@exec scripts/chaos-1b.sh 5 '$(SEED)'

check-clients:
	@exec scripts/check-clients.sh

check-systemd:
	@exec scripts/check-systemd.sh

deb:
	@exec scripts/deb.sh

check-container:
	@exec scripts/check-container.sh '$(FULL)'

check-gpu:
	@exec scripts/check-gpu.sh '$(WERROR)' '$(FATBINS)'

gpu-verify:
	@exec scripts/gpu-verify.sh '$(REPORT)' $(if $(DRY_RUN),--dry-run)

check-oci:
	@exec scripts/check-oci.sh

check-web:
	@exec scripts/check-web.sh

clean:
	rm -rf build

format:
	@git ls-files '*.c' '*.h' '*.cc' '*.cu' | xargs clang-format -i

fuzz:
	@exec scripts/fuzz.sh '$(SECONDS)'

install:
	@scripts/packages.sh build
	@scripts/build.sh release installables -DCMAKE_INSTALL_PREFIX='$(PREFIX)' -DLLMD_FATBINS=ON
	DESTDIR='$(DESTDIR)' cmake --install build/release
