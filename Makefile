# The doors of the house: each installs what is missing first, then leaves the work to CMake (CMakePresets.json).
#   make demo      train, kill, resume, look: about five minutes          make demo TEXT="path…" on other text
#   make test      build everything, run every test
#   make build     build/bin/smlp and build/bin/smlp-worker
#   make tests     build the test programs too, run nothing
#   make install PREFIX=/somewhere
#   make clean     remove build/
PREFIX ?= /usr/local
JOBS ?= $(shell nproc 2>/dev/null || echo 2)
TEST_JOBS ?= 1

.DEFAULT_GOAL := build
.PHONY: demo test build tests install clean setup

setup:
	@scripts/setup.sh

# Configured once; after that the build itself notices what changed.
build/build.ninja: CMakePresets.json | setup
	cmake --preset cpu-release

build: build/build.ninja
	cmake --build --preset cpu-release --parallel $(JOBS) --target smlp smlp-worker

tests: build/build.ninja
	cmake --build --preset cpu-release --parallel $(JOBS)

test: tests
	ctest --test-dir build --output-on-failure --parallel $(TEST_JOBS)

demo: build
	scripts/demo.sh

install: build
	cmake --install build --prefix "$(PREFIX)"

clean:
	rm -rf build
