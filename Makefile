# make demo         install into .venv and let the bundled model write
# make test         lint, types, layers, formatting and all tests but those of a card
# make battlemage   kernels and a dry run for an Arc Pro B70 that need not be there
# make emulate      the bundled model writes by Battlemage's instructions, which an emulator executes
# make emulate-test tests of the emulator, and tests of operators and models on the emulated card
# make emulate-all  those that take long too (some of AVX2 and in a card's geometry on the CPU as well), operators in a
#                   random order of threads, and deliberate errors
# make build        rebuild the host module after a change (VENV=FOLDER builds for another environment)
# make page         build the page at / from page/ into arcmtp/data/page (needs npm)
# make format       format C++ and order imports

VENV ?= .venv
PYTHON ?= python3

bin := $(VENV)/bin
install := $(bin)/python -m pip --disable-pip-version-check install --quiet
# Without build isolation: the build needs the 1.7 GB of the SYCL runtime too, and so they come once.
editable := $(install) --no-build-isolation --editable
cpp_sources := $(wildcard arcmtp/runtime/host/*.[ch]pp sycl_kernels/*.hpp scripts/battlemage/*.c \
	scripts/battlemage/emulator/*.h scripts/battlemage/emulator/*.[ch]pp)
# In two processes, since compiling, on one core, takes most of the time; files stay whole, for kernels that they share.
slowest := --durations=12 --durations-min=5
pytest := $(bin)/python -m pytest -n 2 --dist loadfile $(slowest)
# The emulated card beside the CPU device; tests on it in two processes too.
emulated := ONEAPI_DEVICE_SELECTOR='opencl:cpu;level_zero:gpu' PYTHONPATH=.
on_card := $(emulated) scripts/battlemage/run.sh --execute $(bin)/python
test_on_card = $(emulated) $(bin)/python -m pytest --dist loadfile $(slowest) \
	--tx "2*popen//python=scripts/battlemage/run.sh --execute $(bin)/python"
checks := ARCMTP_EMULATOR_CHECKS=poison,races

.PHONY: demo test lint build battlemage emulate emulate-test emulate-all emulator page check-page format clean

demo: build
	$(bin)/arcmtp generate --raw -p "def read_lines(path):" -n 96

test: lint build
	$(pytest) -m "not geometry"
	CL_CONFIG_CPU_TARGET_ARCH=core-avx2 $(pytest) -m "avx2 and not nightly and not geometry"

lint: $(VENV)/.installed-tools check-page
	$(bin)/ruff check
	$(bin)/mypy
	$(bin)/lint-imports --no-logo --no-cache
	$(bin)/clang-format --dry-run --Werror $(cpp_sources)

build: $(VENV)/.installed
	@test -d build/editable || $(editable) .
	@$(bin)/cmake --build build/editable -- --quiet

battlemage: build
	PYTHON=$(abspath $(bin)/python) scripts/battlemage/check.sh

emulate: emulator
	$(on_card) scripts/battlemage/demo.py

emulate-test: emulator
	$(checks) $(test_on_card) -m "emulated and not nightly" tests/emulator tests/ops tests/runtime tests/scripts
	$(test_on_card) -m "emulated and not nightly" tests/battlemage tests/predict
	for card in b580 b50; do CARD=$$card $(test_on_card) -m emulated -k "golden or geometry" tests/battlemage || exit 1; done

emulate-all: emulate-test
	$(test_on_card) -m "emulated and nightly" tests
	$(pytest) -m geometry
	CL_CONFIG_CPU_TARGET_ARCH=core-avx2 $(pytest) -m avx2
	ARCMTP_EMULATOR_SEED=1 $(test_on_card) -m emulated tests/ops
	$(bin)/python scripts/battlemage/mutations.py
	$(on_card) scripts/battlemage/count_launches.py

emulator: build $(VENV)/.installed-tools
	scripts/battlemage/install.sh

page: page/node_modules/.package-lock.json
	npm --prefix page run --silent build

check-page:
	@if ! command -v npm >/dev/null; then echo "page/ was NOT checked: npm is missing"; \
	elif ! $(MAKE) --silent page/node_modules/.package-lock.json; then echo "page/ was NOT checked: its packages cannot be fetched here"; \
	else npm --prefix page run --silent check; fi

page/node_modules/.package-lock.json: page/package.json page/package-lock.json
	npm --prefix page ci --silent --prefer-offline
	@touch $@

format: $(VENV)/.installed-tools
	$(bin)/ruff check --fix
	$(bin)/clang-format -i $(cpp_sources)

clean:
	rm -rf .venv build dist page/node_modules arcmtp/runtime/_host.*.so .mypy_cache .pytest_cache .ruff_cache

$(VENV)/.installed: pyproject.toml CMakeLists.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed: make PYTHON=/path/to/python3"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, os, sysconfig; os.stat(sysconfig.get_path("include") + "/Python.h")' 2>/dev/null || \
		{ echo "Python's venv or headers are missing: apt-get install python3-venv python3-dev"; exit 1; }
	@command -v $(CXX) >/dev/null || { echo "a C++ compiler is needed: apt-get install g++"; exit 1; }
	test -e $(bin)/python || $(PYTHON) -m venv $(VENV)
	$(install) $$($(PYTHON) -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["build-system"]["requires"])')
	$(editable) .
	@touch $@

$(VENV)/.installed-tools: $(VENV)/.installed
	$(editable) '.[test,dev]'
	@touch $@
