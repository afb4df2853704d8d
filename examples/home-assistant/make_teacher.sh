#!/usr/bin/env bash
# Makes the embedded teacher again: its rows, tokenizer and weights.
set -euo pipefail
cd "$(dirname "$0")"
BIN=../../.venv/bin
trained() { rm -rf "$2" && cp -r build/runs/"$1"/finetune-*/model "$2"; }

"$BIN/python" workload.py --out build --train 160000 --validation 600 --test 600 --seed 0
"$BIN/python" make_tokenizer.py --rows build/train.jsonl --out build/tokenizer
"$BIN/python" echo.py --rows build/train.jsonl --tokenizer build/tokenizer --out build/echo.jsonl
# some echo rows stay in all later training, so that rare tokens are not forgotten
head -n 10000 build/echo.jsonl | cat build/train.jsonl - >build/rows.jsonl
"$BIN/potstill" run copying.yaml --until finetune --runs build/runs
trained home-assistant-copying build/copying
"$BIN/potstill" run commands.yaml --until finetune --runs build/runs
trained home-assistant-commands build/commands
"$BIN/python" deepen.py --model build/commands --layers 14 --out build/deep
"$BIN/potstill" run deeper.yaml --until finetune --runs build/runs
trained home-assistant-deeper build/deeper
"$BIN/potstill" run longer.yaml --until finetune --runs build/runs
trained home-assistant-longer build/longer
"$BIN/python" workload.py --out build/fresh --train 80000 --seed 1
head -n 5000 build/echo.jsonl | cat build/fresh/train.jsonl - >build/more.jsonl
"$BIN/potstill" run teacher.yaml --until finetune --runs build/runs
rm -rf teacher
mkdir teacher
for file in config.json generation_config.json model.safetensors tokenizer.json tokenizer_config.json chat_template.jinja; do
  cp build/runs/home-assistant-teacher/finetune-*/model/$file teacher/
done
echo "the teacher is in examples/home-assistant/teacher"
