# The mail server's own tasks. `make help` lists them.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO := var
PREFIX ?= /opt/mailserver
SYSTEM_PYTHON ?= /usr/bin/python3
SECONDS ?= 20
# A process for each core, each with whole files, those first that start servers: they take the longest.
IN_PARALLEL := --numprocesses auto --dist loadfile --no-loadscope-reorder
STAMP := $(VENV)/.installed
STAMP_TEST := $(VENV)/.installed-test

.DEFAULT_GOAL := help
.PHONY: help run test test-again compliance differential check lint type format render clients thunderbird bench install uninstall clean faults soak fuzz audit

help: ## list the tasks
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
		|| { echo "make: Python 3.11 or newer is needed as $(PYTHON): apt-get install python3, or make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null \
		|| { echo "make: $(PYTHON) has no venv module: apt-get install python3-venv" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV)

$(STAMP): setup.cfg pyproject.toml | $(BIN)/python
	@echo "Installing into $(VENV) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --config-settings editable_mode=compat -e .
	@touch $@

$(STAMP_TEST): $(STAMP)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --config-settings editable_mode=compat -e '.[test,check]'
	@touch $@

run: $(STAMP) ## start the server in ./var on 127.0.0.1, made ready the first time
	@test -e $(DEMO)/main.cf || $(BIN)/mailserver init $(DEMO) --demo
	@exec $(BIN)/mailserver -c $(DEMO) run

test: $(STAMP_TEST) ## run the whole suite
	@$(BIN)/python -m pytest -q $(IN_PARALLEL)

test-again: $(STAMP_TEST) ## run what failed the last time, where that was no more than five tests
	@$(BIN)/python -c 'import json, sys; sys.exit(not 0 < len(json.load(open(".pytest_cache/v/cache/lastfailed"))) < 6)' \
		|| { echo "make: more than five tests failed, or none ran" >&2; exit 1; }
	@$(BIN)/python -m pytest -q --last-failed --last-failed-no-failures none

check: lint type test ## everything that must be green before a commit

lint: $(STAMP_TEST) ## style and common mistakes (ruff)
	@$(BIN)/ruff check mailserver tests twisted benchmarks
	@$(BIN)/ruff format --check mailserver tests twisted benchmarks

type: $(STAMP_TEST) ## strict types (mypy)
	@$(BIN)/mypy

format: $(STAMP_TEST) ## lay the code out
	@$(BIN)/ruff check --fix --quiet mailserver tests twisted benchmarks
	@$(BIN)/ruff format mailserver tests twisted benchmarks

render: $(STAMP) ## write etc/main.cf and docs/PARAMETERS.md from the parameters' declarations
	@$(BIN)/python -m mailserver.config.render --write

compliance: $(STAMP_TEST) ## run the tests that cite an RFC and write docs/COMPLIANCE.md: RFC section, test, result
	@$(BIN)/python -m pytest -q $(IN_PARALLEL) -p tests.compliance

differential: $(STAMP_TEST) ## compare IMAP answers with those of Debian's Dovecot
	@$(BIN)/python -m pytest -q tests/differential

clients: ## install Debian's mail programs that the end-to-end tests drive (root)
	@DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $$(sed 's/#.*//' tests/end_to_end/debian-packages)

faults: $(STAMP_TEST) ## every fault, at every system call, beside Postfix (an hour), and docs/FAULTS.md
	@FAULTS=all $(BIN)/python -m pytest -q tests/faults tests/delivery/test_swap_races.py
	@$(BIN)/python -m tests.fault_table

soak: $(STAMP_TEST) ## repeat every fault with new seeds until one fails
	@while FAULTS=all $(BIN)/python -m pytest -q tests/faults; do :; done

fuzz: $(STAMP) ## feed every grammar what breaks parsers, 20 s each: make fuzz TARGETS=imap_command SECONDS=600
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --config-settings editable_mode=compat -e '.[fuzz]'
	@$(BIN)/python -m tests.fuzz --seconds $(SECONDS) $(TARGETS)

audit: $(STAMP) ## ask PyPI whether holes are known in what is installed
	@$(PYTHON) -m venv $(VENV)-audit
	@$(VENV)-audit/bin/python -m pip install --quiet --disable-pip-version-check 'pip-audit >=2.7, <3'
	@$(VENV)-audit/bin/pip-audit --progress-spinner off --skip-editable --path $$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')

thunderbird: $(STAMP_TEST) ## drive a real Thunderbird (Debian's packages thunderbird and xvfb)
	@$(BIN)/python -m pytest -q -o addopts=--import-mode=importlib tests/graphical

bench: $(STAMP) ## measure the hot paths
	@$(BIN)/python -m benchmarks

# The system's python3, since every user must reach it; etc/install explains PREFIX, DESTDIR and MTA.
install: ## install for everybody, as root: PREFIX=/opt/mailserver, DESTDIR=, MTA=1 for sendmail
	@PYTHON=$(SYSTEM_PYTHON) PREFIX=$(PREFIX) DESTDIR=$(DESTDIR) MTA=$(MTA) etc/install install

uninstall: ## remove what install made; mail and configuration stay
	@PREFIX=$(PREFIX) DESTDIR=$(DESTDIR) etc/install uninstall

clean: ## remove what was built; ./var stays
	@rm -rf $(VENV) $(VENV)-audit build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
