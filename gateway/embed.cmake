# embed.cmake - cmake -DIN=file -DOUT=file.c -DNAME=name -P embed.cmake: the bytes of a file as a C array.
file(READ ${IN} bytes HEX)
string(REGEX REPLACE "([0-9a-f][0-9a-f])" "0x\\1," bytes "${bytes}")
string(REGEX REPLACE "(0x[0-9a-f][0-9a-f],0x[0-9a-f][0-9a-f],0x[0-9a-f][0-9a-f],0x[0-9a-f][0-9a-f],0x[0-9a-f][0-9a-f],0x[0-9a-f][0-9a-f],0x[0-9a-f][0-9a-f],0x[0-9a-f][0-9a-f],)"
  "\\1\n" bytes "${bytes}")
file(WRITE ${OUT} "/* Made from ${NAME}. */\n#include \"gateway/embedded.h\"\n\nconst unsigned char embedded_${NAME}[] = {\n${bytes}\n};\nconst size_t embedded_${NAME}_bytes = sizeof embedded_${NAME};\n")
