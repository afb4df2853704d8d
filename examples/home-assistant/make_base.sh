#!/usr/bin/env bash
# Makes the quickstart's student as it is before training: its rows, and its weights in base/.
set -euo pipefail
cd "$(dirname "$0")"
BIN=../../.venv/bin

mkdir -p build
"$BIN/python" skills.py --tokenizer teacher --out build/skills.jsonl --rows 300000 --seed 0
"$BIN/potstill" run base.yaml --until finetune --runs build/runs
rm -rf base
mkdir base
for file in config.json generation_config.json model.safetensors tokenizer.json tokenizer_config.json chat_template.jinja; do
  cp build/runs/home-assistant-base/finetune-*/model/$file base/
done
echo "the base is in examples/home-assistant/base"
