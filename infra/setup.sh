#!/bin/sh
# Everything that a server needs once: work pools, the limit that captures keep, and the deployments of prefect.yaml.
# Run it from the folder with prefect.yaml, with PREFECT_API_URL and what env.example lists; a second run changes nothing.
#
#   infra/setup.sh                                     # process pools: runs are processes beside their worker
#   infra/setup.sh --type kubernetes --base-job-template infra/kubernetes/base-job-template.json
set -eu
[ $# -gt 0 ] || set -- --type process

prefect work-pool create conceptprune --overwrite "$@"
prefect work-pool create conceptprune-gpu --overwrite "$@"
# One run at once for each GPU that serves the pool. The limit is the pool's: a worker's own --limit makes Prefect 3.8.8's
# worker die when a run that was just killed is retried.
prefect work-pool set-concurrency-limit conceptprune-gpu "${CONCEPTPRUNE_GPUS:-1}"

# Slots for captures, in whatever pool they run. Without the limit they fail; see prefect.yaml.
prefect gcl inspect gpu-capture >/dev/null 2>&1 || prefect gcl create gpu-capture --limit "${CONCEPTPRUNE_GPUS:-1}"

prefect --no-prompt deploy --all
