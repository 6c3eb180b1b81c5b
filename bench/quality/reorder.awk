# reorder.awk - the paragraphs of a text, their sentences in other orders: more positions of text that no model has seen.
#
#     awk -v orders=15 -f bench/quality/reorder.awk bench/quality/heldout.txt
BEGIN { RS = ""; srand(1) }
{
    n_paragraphs++
    gsub(/\n/, " ")
    count[n_paragraphs] = split($0, words, " ")
    n = 1
    sentence[n_paragraphs, n] = ""
    for (i = 1; i <= count[n_paragraphs]; i++) {
        blank = sentence[n_paragraphs, n] == "" ? "" : " "
        sentence[n_paragraphs, n] = sentence[n_paragraphs, n] blank words[i]
        if (words[i] ~ /[.!?]"?$/ && i < count[n_paragraphs])
            n++
    }
    count[n_paragraphs] = n
}
END {
    for (o = 1; o <= orders; o++)
        for (p = 1; p <= n_paragraphs; p++) {
            for (i = 1; i <= count[p]; i++)
                at[i] = i
            for (i = count[p]; i > 1; i--) {
                k = int(rand() * i) + 1
                t = at[i]; at[i] = at[k]; at[k] = t
            }
            for (i = 1; i <= count[p]; i++)
                printf "%s%s", (i > 1 ? " " : ""), sentence[p, at[i]]
            printf "\n\n"
        }
}
