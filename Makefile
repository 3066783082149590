# make demo    rerank the shipped example with the distilled student (first run: minutes; then seconds)
# make test    build what is missing and pass all tests
# make sanitize    the C++ tests once more with the sanitizers of addresses and undefined behaviour, on every instruction set here
# make lint    check style and types
# make stub    regenerate the stub of the extension
# make bench-record WORKLOAD=FILE.jsonl    measure us and our peers, and write docs/benchmarks.md
# make clean   remove what was built; `make distclean` also the environment and the engines
#
# Everything happens in .venv; stamp files in .venv/stamps tell what is up to date.

.PHONY: demo test test-cpp test-python sanitize lint format stub bench-record bench-report clean distclean
.DELETE_ON_ERROR:

PYTHON ?= python3
CMAKE_BUILD_PARALLEL_LEVEL ?= $(shell nproc)
export CMAKE_BUILD_PARALLEL_LEVEL
# PyTorch is only the tests' reference. Its CPU build is on PyTorch's own index; PyPI's build for Linux brings CUDA along.
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu

VENV := .venv
BIN := $(VENV)/bin
STAMPS := $(VENV)/stamps
PIP := $(BIN)/python -m pip --disable-pip-version-check -qq
REQUIREMENTS := $(BIN)/python scripts/requirements.py

# Folders are listed too: their times change when a file is removed.
PYTHON_SOURCES := $(shell find python -not -name '*.pyc' -not -name __pycache__)
CXX_SOURCES := $(shell find csrc tests/cpp)
SOURCES := $(PYTHON_SOURCES) $(CXX_SOURCES) CMakeLists.txt $(wildcard cmake/*) $(wildcard engines/*.toml) pyproject.toml
CXX_FILES := $(filter %.h %.cc,$(CXX_SOURCES))

# --- demo ------------------------------------------------------------------------------------------------------------

ENGINE := engines/smollm2-135m
ADAPTER := engines/imdb-student
STUDENT := engines/smollm2-135m-imdb
EXAMPLE := examples/film_club.jsonl

demo: $(STAMPS)/package $(STUDENT)/manifest.json
	@$(BIN)/exp3rt-trt rank $(EXAMPLE) --engine $(STUDENT) --mode score

$(STUDENT)/manifest.json: $(ADAPTER)/adapter_model.safetensors $(ADAPTER)/scale.json | $(STAMPS)/package
	@echo "Building the distilled student's engine in $(STUDENT)"
	@$(BIN)/exp3rt-trt build --model smollm2-135m-instruct --adapter $(ADAPTER) --target cpu --dtype bf16 --out $(STUDENT)

$(ENGINE)/manifest.json: | $(STAMPS)/package
	@echo "Building the base student's engine in $(ENGINE)"
	@$(BIN)/exp3rt-trt build --model smollm2-135m-instruct --target cpu --dtype bf16 --out $(ENGINE)

# --- tests -----------------------------------------------------------------------------------------------------------

test: test-cpp test-python

test-cpp: $(STAMPS)/checked
	@$(BIN)/ctest --test-dir build/test --output-on-failure

test-python: $(STAMPS)/checked
	@$(BIN)/python -m pytest -q tests/python

# A set that this machine lacks stands for its best one.
ISAS := avx2 avx512 avx512_vnni avx512_bf16 amx

sanitize: $(STAMPS)/checked
	@PATH="$(CURDIR)/$(BIN):$$PATH" cmake -S . -B build/sanitize -G Ninja --log-level=WARNING -DEXP3RT_BUILD_TESTS=ON \
	    -DCMAKE_BUILD_TYPE=RelWithDebInfo -DCMAKE_CXX_FLAGS_RELWITHDEBINFO="-O1 -g" \
	    -DCMAKE_CXX_FLAGS="-fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer" \
	    -DPython_EXECUTABLE="$(CURDIR)/$(BIN)/python" -Dpybind11_DIR="$$($(BIN)/python -m pybind11 --cmakedir)"
	@PATH="$(CURDIR)/$(BIN):$$PATH" cmake --build build/sanitize --target exp3rt_tests
	@for isa in $(ISAS); do echo $$isa; EXP3RT_TRT_ISA=$$isa build/sanitize/tests/cpp/exp3rt_tests || exit 1; done

# --- lint ------------------------------------------------------------------------------------------------------------

lint: $(STAMPS)/lint-tools
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --check --quiet --diff .
	@$(BIN)/mypy
	@$(BIN)/clang-format --dry-run -Werror $(CXX_FILES)

format: $(STAMPS)/lint-tools
	@$(BIN)/ruff check --quiet --fix . ; $(BIN)/ruff format --quiet .
	@$(BIN)/clang-format -i $(CXX_FILES)

stub: $(STAMPS)/package $(STAMPS)/lint-tools
	@$(BIN)/python scripts/make_stub.py

# --- benchmarks ------------------------------------------------------------------------------------------------------

# The peers' environments are made by hand: benchmarks/README.md. Without them: BENCH_PEERS="".
# BENCH_ALSO: more engines of ours to compare, e.g. an int8 one.
WORKLOAD ?=
BENCH_PEERS ?= vllm openvino transformers llama_cpp
BENCH_ALSO ?=

bench-record: $(STAMPS)/test-tools $(ENGINE)/manifest.json
	@$(BIN)/python benchmarks/record.py --engine $(ENGINE) --workload "$(WORKLOAD)" --only $(BENCH_PEERS) \
	    --also $(BENCH_ALSO)
	@$(MAKE) --no-print-directory bench-report

bench-report: $(STAMPS)/test-tools
	@$(BIN)/python benchmarks/report.py --results benchmarks/results --docs docs

clean:
	rm -rf build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis .benchmarks
	rm -f $(STAMPS)/package $(STAMPS)/checked

distclean: clean
	rm -rf $(VENV) $(ENGINE) $(STUDENT)

# --- the environment -------------------------------------------------------------------------------------------------

$(STAMPS)/venv:
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 10) or sys.exit("Python 3.10 or newer is needed: make PYTHON=...")'
	@$(PYTHON) -m venv $(VENV)
	@mkdir -p $(STAMPS) && touch $@

# What the build needs, kept in .venv so that builds are incremental; what runs is installed with it.
$(STAMPS)/build-tools: $(STAMPS)/venv pyproject.toml scripts/requirements.py
	@echo "Installing the requirements"
	@$(REQUIREMENTS) build run > $(STAMPS)/requirements.txt
	@$(PIP) install -r $(STAMPS)/requirements.txt cmake ninja
	@touch $@

$(STAMPS)/lint-tools: $(STAMPS)/build-tools
	@echo "Installing the tools of lint"
	@$(REQUIREMENTS) run dev > $(STAMPS)/requirements.txt
	@$(PIP) install -r $(STAMPS)/requirements.txt
	@touch $@

# torch comes first and alone, so that nothing else chooses its version or build. The first try gives up quickly on
# an index that cannot be reached, and is content with what the others have.
TORCH_OPTIONS := $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))
$(STAMPS)/test-tools: $(STAMPS)/build-tools $(STAMPS)/lint-tools
	@echo "Installing the tools of the tests"
	@$(REQUIREMENTS) test | grep '^torch' > $(STAMPS)/torch.txt
	@$(PIP) install --retries 0 --timeout 10 $(TORCH_OPTIONS) -r $(STAMPS)/torch.txt \
	    || $(PIP) install $(TORCH_OPTIONS) -r $(STAMPS)/torch.txt
	@$(REQUIREMENTS) test bench evaluate pipeline > $(STAMPS)/requirements.txt
	@$(PIP) install -r $(STAMPS)/requirements.txt
	@touch $@

INSTALL := $(PIP) install --no-build-isolation --no-deps --force-reinstall .

$(STAMPS)/package: $(STAMPS)/build-tools $(SOURCES)
	@echo "Building and installing the package"
	@PATH="$(CURDIR)/$(BIN):$$PATH" SKBUILD_BUILD_DIR=build/package $(INSTALL)
	@touch $@

# The same package, built together with the C++ tests and with warnings as errors.
$(STAMPS)/checked: $(STAMPS)/test-tools $(SOURCES)
	@echo "Building and installing the package and the C++ tests"
	@PATH="$(CURDIR)/$(BIN):$$PATH" SKBUILD_BUILD_DIR=build/test \
	    SKBUILD_CMAKE_DEFINE="EXP3RT_BUILD_TESTS=ON;EXP3RT_WARNINGS_AS_ERRORS=ON" $(INSTALL)
	@touch $(STAMPS)/package $@
