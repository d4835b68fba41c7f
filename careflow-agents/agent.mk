# What the two agents' Makefiles share. Each sets SERVICE (its Cloud Run service), ROLE (`careflow serve ROLE`) and ACCESS.
ROOT     := $(abspath $(dir $(lastword $(MAKEFILE_LIST)))/..)
CAREFLOW := $(ROOT)/.venv/bin/careflow
DATA     := $(or $(filter /%,$(CAREFLOW_DATA_DIR)),$(ROOT)/$(or $(CAREFLOW_DATA_DIR),careflow-data))

UP          ?=
GCLOUD      ?= gcloud
PROJECT     ?= $(or $(CLOUDSDK_CORE_PROJECT),$(shell $(GCLOUD) config get-value project 2>/dev/null))
REGION      ?= us-central1
ENVIRONMENT ?= prod
ENV_FILE    ?= env.$(ENVIRONMENT).yaml
ACCOUNT     ?= careflow-$(ROLE)@$(PROJECT).iam.gserviceaccount.com
IMAGE       ?=

.PHONY: help run run-alone deploy
.DEFAULT_GOAL := help

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | sort

$(CAREFLOW):
	@$(MAKE) -C $(ROOT) .venv/.ready

run: $(CAREFLOW) ## Serve this agent here, with everything it needs around it, until Ctrl-C (UP="--speed 20": patients live faster)
	@[ -e "$(DATA)/careflow.sqlite3" ] || [ -n "$$CAREFLOW_TWILIO_ACCOUNT_SID" ] || \
	  "$(CAREFLOW)" roster import --sample --data-dir "$(DATA)"
	@exec "$(CAREFLOW)" up --data-dir "$(DATA)" $(UP)

run-alone: $(CAREFLOW) ## Serve this agent and nothing else, as its container does
	@exec "$(CAREFLOW)" serve $(ROLE) --data-dir "$(DATA)"

deploy: ## Deploy to Cloud Run: IMAGE, PROJECT and ENV_FILE (README.md says what they are)
	@lacks=; say() { lacks=1; printf 'make deploy: %s\n' "$$1" >&2; }; \
	command -v "$(GCLOUD)" >/dev/null || say 'there is no gcloud on the PATH: install the Google Cloud CLI'; \
	[ -n "$(PROJECT)" ] || say 'no project: gcloud config set project ID, or make deploy PROJECT=ID'; \
	[ -n "$(IMAGE)" ] || say 'no image: make deploy IMAGE=ADDRESS of a container image that runs `careflow serve $(ROLE)`'; \
	[ -f "$(ENV_FILE)" ] || say 'no $(ENV_FILE): the settings of this deployment; README.md shows one'; \
	[ -z "$$lacks" ] || { echo 'make deploy: nothing was deployed' >&2; exit 1; }
	$(GCLOUD) run deploy $(SERVICE) --project=$(PROJECT) --region=$(REGION) --image=$(IMAGE) --port=8080 \
	  --service-account=$(ACCOUNT) --env-vars-file=$(ENV_FILE) --min-instances=1 --max-instances=1 --no-cpu-throttling \
	  --timeout=1800 $(ACCESS)
