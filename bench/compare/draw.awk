# draw.awk - rows of bench-cpu-vs-llamacpp (CSV) as the table or the picture of a README.
#
#     awk -f bench/compare/draw.awk -v form=markdown|svg FILE...
#
# The picture has a bar a ratio, on a logarithmic axis around 1, and on it the range of the rounds.

# Fields of a line of CSV into f[1..]; a field may stand in quotes, with no quotes inside.
function fields(line, f,    n, quoted) {
    for (n = 0; line != ""; ) {
        quoted = substr(line, 1, 1) == "\""
        match(line, quoted ? "^\"[^\"]*\"" : "^[^,]*")
        f[++n] = substr(line, 1 + quoted, RLENGTH - 2 * quoted)
        line = substr(line, RLENGTH + 2)
    }
    return n
}

function x_of(ratio) {
    ratio = ratio < lowest ? lowest : ratio > highest ? highest : ratio
    return label_width + plot_width * log(ratio / lowest) / log(highest / lowest)
}

function table_row(f,    share) {
    share = f["limit_of"] == "" ? "" : sprintf("%.0f %% of %s (theirs %.0f %%)", f["ours_percent"], f["limit_of"], f["theirs_percent"])
    printf "| %s | %s | %s | %.1f %s | %.1f | %s | **%.2f** (%.2f to %.2f of %d) |\n", f["shape"], f["type"], f["work"], f["ours"],
        f["unit"], f["theirs"], share, f["ratio"], f["ratio_low"], f["ratio_high"], f["rounds"]
}

function bar(f,    x, one, middle) {
    if (f["shape"] " " f["type"] != group) {
        group = f["shape"] " " f["type"]
        y += group_gap
        body = body sprintf("<text x=\"12\" y=\"%d\" font-weight=\"bold\">%s</text>\n", y - 6, group)
    }
    x = x_of(f["ratio"]); one = x_of(1); middle = y + row_height / 2
    body = body sprintf("<text x=\"%d\" y=\"%d\" text-anchor=\"end\">%s</text>\n", label_width - 8, y + 12, f["work"])
    body = body sprintf("<rect x=\"%.1f\" y=\"%d\" width=\"%.1f\" height=\"%d\" fill=\"%s\"/>\n", x < one ? x : one, y + 3,
        x < one ? one - x : x - one, row_height - 6, f["ratio"] >= 1 ? "#2a7f62" : "#c1553b")
    body = body sprintf("<line x1=\"%.1f\" y1=\"%d\" x2=\"%.1f\" y2=\"%d\" stroke=\"#222\"/>\n", x_of(f["ratio_low"]), middle,
        x_of(f["ratio_high"]), middle)
    body = body sprintf("<text x=\"%d\" y=\"%d\">%.2f</text>\n", label_width + plot_width + 10, y + 12, f["ratio"])
    y += row_height
}

function axis(    n, i, ratios, labels, x) {
    n = split("0.125 0.25 0.5 1 2 4 8", ratios, " ")
    split("1/8 1/4 1/2 1 2 4 8", labels, " ")
    for (i = 1; i <= n; i++) {
        x = x_of(ratios[i])
        printf "<line x1=\"%.1f\" y1=\"%d\" x2=\"%.1f\" y2=\"%d\" stroke=\"%s\"/>\n", x, top, x, y, ratios[i] == 1 ? "#444" : "#ddd"
        printf "<text x=\"%.1f\" y=\"%d\" text-anchor=\"middle\">%s</text>\n", x, y + 16, labels[i]
    }
}

function picture(    width, height) {
    width = label_width + plot_width + 60
    height = y + bottom
    printf "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %d\" width=\"%d\" height=\"%d\"", width, height, width, height
    print " font-family=\"sans-serif\" font-size=\"12\" fill=\"#222\">"
    print "<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>"
    print "<text x=\"12\" y=\"20\" font-size=\"15\">llmd over llama.cpp: speed on the same weights and threads (above 1: llmd is faster)</text>"
    printf "<text x=\"12\" y=\"38\" fill=\"#666\">%d threads, %s time; medians, the line is the range of the rounds</text>\n", threads, clock
    axis()
    printf "%s</svg>\n", body
}

BEGIN {
    if (form != "svg" && form != "markdown") {
        print "draw.awk: -v form=svg or -v form=markdown" > "/dev/stderr"
        exit 2
    }
    row_height = 18; group_gap = 26; label_width = 230; plot_width = 520; top = 54; bottom = 34
    lowest = 0.125; highest = 8
    y = top
}

FNR == 1 {
    n_names = fields($0, names)
    next
}

{
    fields($0, values)
    for (i = 1; i <= n_names; i++)
        row[names[i]] = values[i]
    threads = row["threads"]; clock = row["clock"]
    if (form == "svg")
        bar(row)
    else {
        if (!n_rows++) {
            printf "%d threads, %s time; medians, in brackets the worst and the best round and how many there were.\n\n", threads, clock
            print "| model | weights | work | ours | llama.cpp | share of the limit | ratio |"
            print "| --- | --- | --- | ---: | ---: | --- | ---: |"
        }
        table_row(row)
    }
}

END {
    if (form == "svg")
        picture()
}
