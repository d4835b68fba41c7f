# What the two agents' Makefiles share. Each sets ROLE (`careflow serve ROLE`), SERVICES (the Cloud Run services of its image) and,
# for each of these, FLAGS_service, SETTINGS_service and DOOR_service: `private` (Cloud Run checks Google's tokens) or `public`.
# infra/ says the same in Terraform.
ROOT     := $(abspath $(dir $(lastword $(MAKEFILE_LIST)))/..)
HERE     := $(abspath $(dir $(firstword $(MAKEFILE_LIST))))
CAREFLOW := $(ROOT)/.venv/bin/careflow
DATA     := $(or $(filter /%,$(CAREFLOW_DATA_DIR)),$(ROOT)/$(or $(CAREFLOW_DATA_DIR),careflow-data))

UP          ?=
GCLOUD      ?= gcloud
PROJECT     ?= $(or $(CLOUDSDK_CORE_PROJECT),$(shell $(GCLOUD) config get-value project 2>/dev/null))
REGION      ?= us-central1
ENVIRONMENT ?= prod
ENV_FILE    ?= env.$(ENVIRONMENT).yaml
ACCOUNT     ?= careflow-$(ROLE)@$(PROJECT).iam.gserviceaccount.com
TAG         ?= $(shell git -C "$(ROOT)" describe --always --dirty --abbrev=12 2>/dev/null)
REPOSITORY  ?= $(if $(PROJECT),$(REGION)-docker.pkg.dev/$(PROJECT)/careflow)
IMAGE       ?= $(if $(REPOSITORY),$(if $(TAG),$(REPOSITORY)/$(ROLE):$(TAG)))
MIN         ?= 1
MAX         ?= 4

# Who can build here: an engine that answers, else Cloud Build.
BUILDER      ?= $(shell for one in docker podman buildah; do \
  if command -v $$one >/dev/null && $$one info >/dev/null 2>&1; then echo $$one; exit; fi; done; \
  if command -v $(GCLOUD) >/dev/null; then echo gcloud; fi)
BUILD_OPTIONS ?=
PYTHON_IMAGE  ?= $(shell sed -n 's/^ARG PYTHON_IMAGE=//p' "$(HERE)/Dockerfile")

# Only behind Cloud Run's own check may the signature of a token be missing.
private := --no-allow-unauthenticated
public  := --allow-unauthenticated
trust_private := CAREFLOW_TRUST_PLATFORM_TOKENS=true
trust_public  := CAREFLOW_TRUST_PLATFORM_TOKENS=false

.PHONY: help run run-alone build push deploy lacking
.DEFAULT_GOAL := help

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | sort

$(CAREFLOW):
	@$(MAKE) -C $(ROOT) .venv/.ready

run: $(CAREFLOW) ## Serve this agent here, with everything it needs around it, until Ctrl-C (UP="--speed 20": patients live faster)
	@[ -e "$(DATA)/careflow.sqlite3" ] || [ -n "$$CAREFLOW_TWILIO_ACCOUNT_SID" ] || [ "$$CAREFLOW_STORE" = firestore ] || \
	  "$(CAREFLOW)" roster import --sample --data-dir "$(DATA)"
	@exec "$(CAREFLOW)" up --data-dir "$(DATA)" $(UP)

run-alone: $(CAREFLOW) ## Serve this agent and nothing else, as its container does
	@exec "$(CAREFLOW)" serve $(ROLE) --data-dir "$(DATA)"

build: ## Build the image: by docker, podman or buildah, else by Cloud Build, which pushes it too (BUILDER chooses)
	@image="$(or $(IMAGE),localhost/careflow/$(ROLE):$(or $(TAG),latest))"; builder="$(BUILDER)"; \
	case "$$builder" in \
	  docker|podman|buildah) set -x; \
	    "$$builder" build --file "$(HERE)/Dockerfile" --platform linux/amd64 --build-arg "PYTHON_IMAGE=$(PYTHON_IMAGE)" \
	      --tag "$$image" $(BUILD_OPTIONS) "$(ROOT)" ;; \
	  gcloud) \
	    [ -n "$(IMAGE)" ] || { echo 'make build: Cloud Build needs a project: gcloud config set project ID, or make build PROJECT=ID' >&2; exit 1; }; \
	    set -x; "$(GCLOUD)" builds submit "$(ROOT)" --project="$(PROJECT)" --region="$(REGION)" \
	      --config="$(ROOT)/careflow-agents/cloudbuild.yaml" \
	      --substitutions="_DOCKERFILE=$(patsubst $(ROOT)/%,%,$(HERE)/Dockerfile),_IMAGE=$$image,_PYTHON_IMAGE=$(PYTHON_IMAGE)" ;; \
	  ?*) echo "make build: BUILDER=$$builder: accepted are docker, podman, buildah and gcloud" >&2; exit 1 ;; \
	  *) echo 'make build: there is no docker, podman or buildah with a running engine, and no gcloud for Cloud Build: install one' >&2; \
	    exit 1 ;; \
	esac

push: ## Push the image where Cloud Run finds it, and print its digest, which a release names
	@[ -n "$(IMAGE)" ] || { echo 'make push: no project: gcloud config set project ID, or make push PROJECT=ID' >&2; exit 1; }
	@case "$(BUILDER)" in gcloud|'') ;; *) set -x; "$(BUILDER)" push "$(IMAGE)" ;; esac
	@"$(GCLOUD)" artifacts docker images describe "$(IMAGE)" --project="$(PROJECT)" \
	  --format='value(image_summary.fully_qualified_digest)'

lacking:
	@lacks=; say() { lacks=1; printf 'make deploy: %s\n' "$$1" >&2; }; \
	command -v "$(GCLOUD)" >/dev/null || say 'there is no gcloud on the PATH: install the Google Cloud CLI'; \
	[ -n "$(PROJECT)" ] || say 'no project: gcloud config set project ID, or make deploy PROJECT=ID'; \
	[ -n "$(IMAGE)" ] || say 'no image: make build push, then make deploy; or make deploy IMAGE=ADDRESS of one that runs `careflow serve $(ROLE)`'; \
	[ -f "$(ENV_FILE)" ] || say 'no $(ENV_FILE): the settings of this deployment; env.example.yaml is one to copy'; \
	[ -z "$$lacks" ] || { echo 'make deploy: nothing was deployed' >&2; exit 1; }

deploy: $(SERVICES:%=deploy-%) ## Deploy to Cloud Run: ENVIRONMENT=staging or prod, PROJECT, IMAGE (README.md says what they are)

# A service's own settings are joined to the file: gcloud takes a file of them or words, not both.
deploy-%: lacking
	@settings="$$(mktemp)"; trap 'rm -f "$$settings"' EXIT; \
	{ cat "$(ENV_FILE)"; echo; printf '%s\n' $(SETTINGS_$*) $(trust_$(DOOR_$*)) | sed -E 's/^([A-Z_]+)=(.*)$$/\1: "\2"/'; } >"$$settings"; \
	set -x; "$(GCLOUD)" run deploy "$*" --project="$(PROJECT)" --region="$(REGION)" --image="$(IMAGE)" --port=8080 \
	  --service-account="$(ACCOUNT)" --env-vars-file="$$settings" --min-instances=$(MIN) --max-instances=$(MAX) \
	  --cpu=1 --cpu-boost --execution-environment=gen2 --startup-probe=httpGet.path=/readyz,periodSeconds=1,timeoutSeconds=1,failureThreshold=60 \
	  $(FLAGS_$*) $($(DOOR_$*))
