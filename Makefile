# `make demo` and `make test` do all the set-up on a fresh machine: .venv, pinned dependencies, the extension, the job.
# TORCH_INDEX chooses where torch comes from: the index URL that PyTorch's install page gives for your platform (CPU or CUDA).
# A virtual environment that is already active, or PYTHON=..., chooses the interpreter (>= 3.10).

PYTHON ?= python3
TORCH ?= torch==2.13.0
# Another torch may want another Triton: TORCH=torch==2.11.0 TRITON=triton leaves the choice to torch.
TRITON ?= triton==3.7.1; sys_platform == 'linux'
VENV ?= .venv
BIN := $(VENV)/bin
HAVE_CXX := $(shell command -v $(firstword $(CXX)) >/dev/null 2>&1 && echo yes)
SOURCES := setup.py $(shell find csrc -name "*.cpp" -o -name "*.h")

.PHONY: demo test lint bench sanitize fit lava clean

demo: $(BIN)/.built
	$(BIN)/lrnn demo

test: $(BIN)/.built lint
	-@$(MAKE) --no-print-directory lava
	$(BIN)/python -m pytest -n 2 $(PYTEST)

# The environment that Intel's Lava runs in, of its own: no torch, 0.4 GB, about a minute. It takes a Python 3.10, else
# 3.11 or 3.12; LRNN_LAVA_PYTHON names one.
# LRNN_LAVA names the Python of one that is there. Where none can be had, its tests say so and are skipped.
lava:
	@$(if $(LRNN_LAVA),test -x $(LRNN_LAVA),$(PYTHON) lrnn/export/lava/environment.py .venv-lava)

lint: $(BIN)/.built
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(BIN)/.built
	$(BIN)/lrnn bench matvec
	$(BIN)/lrnn bench spmm
	$(BIN)/lrnn bench spmm --train
	$(BIN)/lrnn bench scan
	$(BIN)/lrnn bench stream
	$(BIN)/lrnn bench stream --model lrnn/models/denoiser-float.lrnn

# The tests of kernels and engine under AddressSanitizer and UndefinedBehaviorSanitizer (GCC), which end the process with a report (that
# pytest must not capture) at the first access out of bounds and at undefined behaviour. The libraries are built into build/sanitize
# and found by LRNN_LIBRARIES: those in lrnn/ stay as they are. Leaks are not looked for: Python keeps memory to its end. Takes minutes.
SANITIZED := build/sanitize
SANITIZE_TESTS := tests/test_matvec.py tests/test_engine.py tests/test_scan.py tests/test_sparse_linear.py tests/test_stream.py \
	tests/test_bad_input.py tests/test_engine_hgrn.py tests/test_fixed_engine.py tests/test_fixed_gated.py tests/test_fixed_embedding.py
sanitize: $(BIN)/.installed
	LRNN_SANITIZE=1 LRNN_NATIVE=require $(BIN)/python setup.py --quiet build_ext --build-lib $(SANITIZED)/lib --build-temp $(SANITIZED)/temp
	LRNN_LIBRARIES=$(CURDIR)/$(SANITIZED)/lib/lrnn LD_PRELOAD="$$($(CXX) -print-file-name=libasan.so) $$($(CXX) -print-file-name=libstdc++.so)" \
	ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1 $(BIN)/python -m pytest -p no:cacheprovider --capture=sys $(SANITIZE_TESTS) $(PYTEST)

fit: $(BIN)/.built
	$(BIN)/lrnn fit -c experiments/denoise-mini.yaml

$(BIN)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { echo "lrnn needs Python >= 3.10; name one with PYTHON=python3.x"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip "setuptools>=77" wheel
	$(BIN)/python -m pip install $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) $(TORCH)
	LRNN_NATIVE=skip $(BIN)/python -m pip install --constraint constraints.txt --no-build-isolation --editable ".[dev]" "$(TRITON)"
	$(BIN)/python -m pip install --quiet --constraint constraints.txt pesq || echo "pesq is not built (it needs a C compiler and Python's headers): lrnn eval goes without PESQ, its tests are skipped"
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-deps neurobench snntorch nir tqdm || echo "neurobench is not installed: lrnn's figures by its names are not compared with its own"
	@touch $@

$(BIN)/.built: $(BIN)/.installed $(SOURCES)
ifeq ($(HAVE_CXX),yes)
	LRNN_NATIVE=require $(BIN)/python setup.py --quiet build_ext --inplace
else
	@echo "no C++ compiler found ($(CXX)): lrnn runs on its reference kernels"
endif
	@touch $@

clean:
	rm -rf $(VENV) .venv-lava build dist *.egg-info lrnn/*.so
