#!/bin/sh
# draw.sh - bench/cpu_vs_llamacpp.csv as the table and the picture beside it.
set -eu
cd "$(dirname "$0")"

awk -f draw.awk -v form=markdown ../cpu_vs_llamacpp.csv >../cpu_vs_llamacpp.md
awk -f draw.awk -v form=svg ../cpu_vs_llamacpp.csv >../cpu_vs_llamacpp.svg
