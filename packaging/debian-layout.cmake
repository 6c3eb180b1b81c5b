# debian-layout.cmake - run by CPack over what was installed, before it is packed: what Debian has otherwise than
# `make install`.  Man pages are compressed (-n: without name and time inside), and zsh looks for completions of
# packages in a folder of its own.
set(share ${CPACK_TEMPORARY_DIRECTORY}/usr/share)
file(GLOB pages ${share}/man/man?/*.[1-8])
if(pages)
  execute_process(COMMAND gzip -9n ${pages} COMMAND_ERROR_IS_FATAL ANY)
endif()
if(EXISTS ${share}/zsh/site-functions)
  file(RENAME ${share}/zsh/site-functions ${share}/zsh/vendor-completions)
endif()
