# build.cmake - make WORK/dist, the files that go into the gateway (web/CMakeLists.txt calls it).
#
#   NPM    npm's program; empty: dist gets the plain page and the API's description, which need no packages
#   MUST   ON: it is an error when the packages cannot be had; else a printed line, and the plain page
file(REMOVE_RECURSE ${WORK}/src ${WORK}/dist)
file(COPY ${SOURCE}/src ${SOURCE}/build.mjs ${SOURCE}/package.json DESTINATION ${WORK})

set(has_packages FALSE)
if(NPM)
  set(installed "")
  file(READ ${SOURCE}/package-lock.json wanted)
  if(EXISTS ${WORK}/installed.json)
    file(READ ${WORK}/installed.json installed)
  endif()
  if(installed STREQUAL wanted)
    set(has_packages TRUE)
  else()
    file(COPY ${SOURCE}/package-lock.json DESTINATION ${WORK})
    execute_process(COMMAND ${NPM} ci --ignore-scripts --no-audit --no-fund --prefer-offline
      --fetch-retries=1 --fetch-retry-mintimeout=2000
      WORKING_DIRECTORY ${WORK} OUTPUT_FILE ${WORK}/npm.log ERROR_FILE ${WORK}/npm.log RESULT_VARIABLE code)
    if(code EQUAL 0)
      file(WRITE ${WORK}/installed.json "${wanted}")
      set(has_packages TRUE)
    elseif(MUST STREQUAL "ON")
      file(READ ${WORK}/npm.log text)
      message(FATAL_ERROR "npm ci failed:\n${text}")
    else()
      message("Web pages: left out, npm could not get the packages (${WORK}/npm.log)")
    endif()
  endif()
endif()

if(has_packages)
  execute_process(COMMAND ${NODE} build.mjs WORKING_DIRECTORY ${WORK} COMMAND_ERROR_IS_FATAL ANY)
else()
  file(COPY ${SOURCE}/plain/index.html ${SOURCE}/src/docs.html DESTINATION ${WORK}/dist)
  file(COPY_FILE ${SOURCE}/plain/index.html ${WORK}/dist/status.html)
  file(COPY ${SOURCE}/src/docs.js ${SOURCE}/src/theme.js ${SOURCE}/src/style.css ${SOURCE}/src/icon.svg
    DESTINATION ${WORK}/dist/assets)
endif()
