#!/bin/bash
# gpu-roofline.sh - the least time that each kernel takes on each GPU, and how near to it we mean to come.
#
# From gpu-worker/cuda/kernels/roofline.csv: bytes over the memory's bandwidth or operations over the tensor cores'
# dense f16 rate, whichever is more, by the data sheets (gpu-worker/cuda/verify/data_sheets.def).  (A10s of clouds have
# ECC on, which costs 10 to 15 % of the bandwidth.)  Nothing here is measured; gpu-verify's G10 prints the same beside
# what it measures.
set -euo pipefail
cd "$(dirname "$0")/.."

# sheet NAME - "NAME GB/s TFLOP/s"
sheet() {
    sed -nE 's|^SHEET\("('"$1"')", "[^"]*", "[^"]*", [0-9]+, ([0-9]+), ([0-9]+), .*|\1 \2 \3|p' \
        gpu-worker/cuda/verify/data_sheets.def
}
gpus=("$(sheet A10)" "$(sheet A100-80)" "$(sheet H100-SXM)")

header="| kernel | case | MB | MFLOP |" rule="| --- | --- | --- | --- |"
for gpu in "${gpus[@]}"; do
    header+=" ${gpu%% *} us |"
    rule+=" --- |"
done
echo "$header target |"
echo "$rule --- |"
while IFS=, read -r kernel name bytes flops percent; do
    [[ -n $kernel && $kernel != \#* && $kernel != kernel ]] || continue
    awk -v kernel="$kernel" -v name="$name" -v bytes="$((bytes))" -v flops="$((flops))" \
        -v percent="$percent" -v gpus="$(IFS=,; echo "${gpus[*]}")" '
        BEGIN {
            line = sprintf("| %s | %s | %.3g | %.3g |", kernel, name, bytes / 1e6, flops / 1e6)
            n = split(gpus, gpu, ",")
            for (i = 1; i <= n; i++) {
                split(gpu[i], limit, " ")
                memory = bytes / (limit[2] * 1e3)
                compute = flops / (limit[3] * 1e6)
                line = line sprintf(" %.3g |", memory > compute ? memory : compute)
            }
            print line " " percent " % |"
        }'
done <gpu-worker/cuda/kernels/roofline.csv
