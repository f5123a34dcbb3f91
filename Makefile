# The doors of the house: each installs what is missing first, then leaves the work to CMake (CMakePresets.json).
#   make demo      train, kill, resume, look: about four minutes          make demo TEXT="path…" on other text
#   make test      build everything, run every test
#   make build     build/bin/smlp and build/bin/smlp-worker
#   make build-cuda  the same for GPUs, with the CUDA toolkit: build-cuda/bin/…
#   make tests     build the test programs too, run nothing
#   make sanitize  the fast tests under the address, undefined-behaviour and thread sanitizers (build-debug, build-tsan)
#   make install PREFIX=/somewhere
#   make clean     remove build/ and the builds of tests beside it
PREFIX ?= /usr/local
JOBS ?= $(shell nproc 2>/dev/null || echo 2)
TEST_JOBS ?= 5

.DEFAULT_GOAL := build
.PHONY: demo test build build-cuda tests sanitize install clean setup

setup:
	@scripts/setup.sh

# Configured once; after that the build itself notices what changed.
build/build.ninja: CMakePresets.json | setup
	cmake --preset cpu-release

build: build/build.ninja
	cmake --build --preset cpu-release --parallel $(JOBS) --target smlp smlp-worker

build-cuda/build.ninja: CMakePresets.json | setup
	cmake --preset cuda-release

build-cuda: build-cuda/build.ninja
	cmake --build --preset cuda-release --parallel $(JOBS) --target smlp smlp-worker

tests: build/build.ninja
	cmake --build --preset cpu-release --parallel $(JOBS)

test: tests
	ctest --test-dir build --output-on-failure --parallel $(TEST_JOBS)

sanitize: setup
	for preset in cpu-debug cpu-tsan; do \
	  cmake --preset $$preset && cmake --build --preset $$preset --parallel $(JOBS) && ctest --preset $$preset || exit 1; \
	done

demo: build
	scripts/demo.sh

install: build
	cmake --install build --prefix "$(PREFIX)"

clean:
	rm -rf build build-debug build-tsan build-test-*
