# roofline.cmake - cmake -DCSV=roofline.csv -DOUT=roofline_rows.inc -P roofline.cmake: kernels and the percentages that
# they are to reach, as rows of a table in C (roofline.c).
file(STRINGS ${CSV} lines REGEX "^[a-z0-9_]+,.*,[0-9]+$")
set(rows "")
foreach(line IN LISTS lines)
  string(REGEX REPLACE "^([a-z0-9_]+),.*,([0-9]+)$" "    { \"\\1\", \\2 },\n" row "${line}")
  string(APPEND rows "${row}")
endforeach()
file(WRITE ${OUT} "${rows}")
