#!/usr/bin/env bash
# Makes the embedded teacher again: rows, tokenizer, weights. About an hour on two CPU cores.
set -euo pipefail
cd "$(dirname "$0")"
BIN=../../.venv/bin
"$BIN/python" workload.py --out build --train 80000 --validation 600 --test 600 --seed 0
"$BIN/python" make_tokenizer.py build/train.jsonl build/tokenizer
"$BIN/potstill" finetune teacher.yaml --runs build/runs
rm -rf teacher
cp -r build/runs/home-assistant-teacher/finetune-*/model teacher
echo "teacher is in $PWD/teacher"
