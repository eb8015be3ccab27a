# Two commands for a newcomer, `make demo` and `make test`; `make lab` to play.
PYTHON ?= python3

.PHONY: demo test lab clean

demo:  ## run the example notebook in a real kernel and write its HTML
	@$(PYTHON) scripts/environment.py examples
	@.venv/bin/python scripts/demo.py

test:  ## every check, with one summary at the end
	@$(PYTHON) scripts/environment.py examples test
	@.venv/bin/python scripts/check.py

lab:  ## open JupyterLab on the examples
	@$(PYTHON) scripts/environment.py examples
	@.venv/bin/jupyter lab notebooks/

clean:  ## remove what the commands above made
	rm -rf .venv build node_modules labextension/lib extension/nbscale_lab/labextension kernel_magic/nbscale/notebook/static
