#!/bin/bash
# check-compiled.sh [--budget] FOLDER [NVCC] - what the assembler made of the kernels: registers, spills, shared memory.
#
# FOLDER is the build's gpu-worker/cuda, with a log beside each fatbin (kernels/compile.sh).  Fails when a kernel takes
# more than its line in kernels/budget.csv allows, spills, or lacks an instruction of kernels/instructions.csv; prints
# the table of kernels/README.md.  Where a CUDA 12 toolkit is found (CUDA12_HOME, or beside the usual place) the same
# sources are compiled by it too, V100 included.  77 without NVCC: nothing was compiled.
#
# --budget prints lines for budget.csv instead, of what each kernel takes now.
set -euo pipefail

budget_wanted=
if [[ ${1:-} == --budget ]]; then
    budget_wanted=1
    shift
fi
folder=$1 nvcc=${2:-}
root=$(cd "$(dirname "$0")/../.." && pwd)
kernels=$root/gpu-worker/cuda/kernels
if [[ -z $nvcc && -z $budget_wanted ]]; then
    echo "skipped: no nvcc, so no kernel was compiled for a GPU"
    exit 77
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
code=0

# taken LOG...: lines KERNEL TARGET REGISTERS SPILLED LOCAL SHARED (bytes; local is the stack frame, spills included).
taken() {
    awk -F"'" '
        /Compiling entry function/ { kernel = $2; target = $4; sub(/^sm_/, "", target) }
        /bytes stack frame/ { split($0, word, " "); spilled = word[5] + word[9]; local = word[1] }
        /Used [0-9]+ registers/ {
            match($0, /Used [0-9]+/); registers = substr($0, RSTART + 5, RLENGTH - 5)
            shared = 0
            if (match($0, /[0-9]+ bytes smem/)) shared = substr($0, RSTART, RLENGTH) + 0
            print kernel, target, registers, spilled, local, shared
        }' "$@" | sort -k1,1 -s
}

taken "$folder"/*.fatbin.log >"$work/taken"

if [[ -n $budget_wanted ]]; then
    echo "kernel,target,registers,local,shared"
    # One line where all targets can share it, or nearly: registers are rounded up to the 8 they are given out in.
    awk '{ up = int(($3 + 7) / 8) * 8
           if (up > most[$1]) most[$1] = up
           if ($5 > local[$1]) local[$1] = $5
           if ($6 > shared[$1]) shared[$1] = $6
           if (!($1 in seen)) { seen[$1] = 1; order[++n] = $1 } }
         END { for (i = 1; i <= n; i++) { k = order[i]; printf "%s,*,%d,%d,%d\n", k, most[k], local[k], shared[k] } }' \
        "$work/taken"
    exit 0
fi

# ---- the budget ----

awk -v budget="$kernels/budget.csv" '
    BEGIN {
        FS = ","
        while ((getline line < budget) > 0) {
            if (line ~ /^(#|kernel,)/ || line == "") continue
            split(line, f, ",")
            limit[f[1], f[2]] = f[3] " " f[4] " " f[5]
            known[f[1]] = 1
        }
        FS = " "
    }
    {
        seen[$1] = 1
        line = limit[$1, $2]
        if (line == "") line = limit[$1, "*"]
        if (line == "") { print $1 " for sm_" $2 ": no line in budget.csv"; bad = 1; next }
        split(line, most, " ")
        # V100 has no instructions for these, and is never given them (attention_plan.c, ops_cuda.c).
        if ($2 == 70 && $1 ~ /^(attention_group|attention_prefill|gemm_grouped|gemm_w4)_/) most[1] = 255
        if ($3 > most[1]) { print $1 " for sm_" $2 ": " $3 " registers, allowed are " most[1]; bad = 1 }
        if ($4 > 0) { print $1 " for sm_" $2 ": " $4 " bytes spilled"; bad = 1 }
        if ($5 > most[2]) { print $1 " for sm_" $2 ": " $5 " bytes of local memory, allowed are " most[2]; bad = 1 }
        if ($6 > most[3]) { print $1 " for sm_" $2 ": " $6 " bytes of shared memory, allowed are " most[3]; bad = 1 }
    }
    END {
        for (k in known) if (!(k in seen)) { print k ": in budget.csv, but no such kernel was compiled"; bad = 1 }
        exit bad
    }' "$work/taken" || code=1

# ---- instructions ----

# ptx FAMILY: of the fatbin where the toolkit can say, which is quicker than compiling once more.
ptx() {
    if [[ -x ${nvcc%/*}/cuobjdump ]]; then
        "${nvcc%/*}/cuobjdump" -ptx "$folder/$1.fatbin"
    else
        "$nvcc" -ptx -std=c++17 -O3 -I "$root" -arch=compute_80 -o /dev/stdout "$kernels/$1.cu"
    fi
}

# One KERNEL.ptx for each entry.
for source in "$folder"/*.fatbin.log; do
    family=$(basename "$source" .fatbin.log)
    ptx "$family" >"$work/$family.all"
    awk -v folder="$work" '
        /^(\.visible )?\.entry / { name = $0; sub(/.*\.entry /, "", name); sub(/\(.*/, "", name); file = folder "/" name ".ptx" }
        file { print > file }
        /^}/ { if (file) close(file); file = "" }' "$work/$family.all"
done
while IFS=, read -r kernel instruction; do
    [[ -n $kernel && $kernel != \#* && $kernel != kernel ]] || continue
    if [[ ! -f $work/$kernel.ptx ]]; then
        echo "$kernel: in instructions.csv, but no such kernel was compiled"
        code=1
    elif ! grep -qF -- "$instruction" "$work/$kernel.ptx"; then
        echo "$kernel: no $instruction in its PTX"
        code=1
    fi
done <"$kernels/instructions.csv"

# ---- CUDA 12 ----

cuda12=
for home in "${CUDA12_HOME:-}" /usr/local/cuda-12*; do
    [[ -z $cuda12 && -x $home/bin/nvcc ]] && cuda12=$home/bin/nvcc
done
if [[ -n $cuda12 ]]; then
    for source in "$folder"/*.fatbin.log; do
        family=$(basename "$source" .fatbin.log)
        "$kernels/compile.sh" "$cuda12" "$family" "$work/$family.12" "70;75;80;86;89;90a" 80 || code=1
    done
    taken "$work"/*.12.log | awk '$4 > 0 { print $1 " by CUDA 12 for sm_" $2 ": " $4 " bytes spilled"; bad = 1 } END { exit bad }' || code=1
    echo "CUDA 12: compiled by $("$cuda12" --version | sed -n 's/.*release \([^,]*\).*/\1/p')"
else
    echo "CUDA 12: skipped, no toolkit found"
fi

# ---- the table ----

echo "registers / bytes spilled / bytes of static shared memory"
awk '{
        if (!($1 in seen)) { seen[$1] = 1; kernel[++n] = $1 }
        if (!($2 in column)) { column[$2] = 1; target[++m] = $2 }
        cell[$1, $2] = $3 " / " $4 " / " $6
    }
    END {
        for (i = 1; i <= m; i++) for (j = i + 1; j <= m; j++) if (target[j] + 0 < target[i] + 0) { t = target[i]; target[i] = target[j]; target[j] = t }
        line = "| kernel |"; rule = "| --- |"
        for (i = 1; i <= m; i++) { line = line " sm_" target[i] " |"; rule = rule " --- |" }
        print line; print rule
        for (k = 1; k <= n; k++) {
            line = "| " kernel[k] " |"
            for (i = 1; i <= m; i++) line = line " " cell[kernel[k], target[i]] " |"
            print line
        }
    }' "$work/taken"
exit "$code"
