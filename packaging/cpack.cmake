# cpack.cmake - what the package says of itself.  Included last by CMakeLists.txt: CPack reads what was set before.
set(CPACK_GENERATOR DEB)
set(CPACK_PACKAGE_NAME llmd)
set(CPACK_PACKAGE_VERSION ${PROJECT_VERSION})
set(CPACK_PACKAGE_CONTACT "llmd maintainers <maintainers@llmd.example>")
set(CPACK_PACKAGE_DESCRIPTION_SUMMARY "LLM server whose processes may die while its streams go on")
set(CPACK_PACKAGE_DESCRIPTION
"It serves Llama and its descendants from HuggingFace folders and GGUF files
over the HTTP interfaces of TGI, OpenAI and vLLM.  Weights, KV pages, requests
and connections live in memory that no single process owns, so that any
process can be killed or upgraded and a client sees a pause, not an error.
.
Installed, it runs as a service on port 8080 with a small demo model.")
set(CPACK_PACKAGING_INSTALL_PREFIX /usr)
set(CPACK_STRIP_FILES ON)
set(CPACK_PRE_BUILD_SCRIPTS ${CMAKE_CURRENT_LIST_DIR}/debian-layout.cmake)
set(CPACK_INSTALL_DEFAULT_DIRECTORY_PERMISSIONS
    OWNER_READ OWNER_WRITE OWNER_EXECUTE GROUP_READ GROUP_EXECUTE WORLD_READ WORLD_EXECUTE)

set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_SECTION net)
set(CPACK_DEBIAN_PACKAGE_PRIORITY optional)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON)
# systemd: the service's, and systemd-sysusers; the helpers: enabled and started as every Debian service is
set(CPACK_DEBIAN_PACKAGE_DEPENDS "systemd, init-system-helpers (>= 1.54~)")
set(CPACK_DEBIAN_PACKAGE_RECOMMENDS "curl")
set(CPACK_DEBIAN_PACKAGE_CONTROL_STRICT_PERMISSION ON)
foreach(script postinst prerm postrm)
  list(APPEND CPACK_DEBIAN_PACKAGE_CONTROL_EXTRA ${CMAKE_CURRENT_LIST_DIR}/${script})
endforeach()
file(WRITE ${CMAKE_BINARY_DIR}/packaging/conffiles "/etc/default/llmd\n/etc/llmd/llmd.yaml\n")
list(APPEND CPACK_DEBIAN_PACKAGE_CONTROL_EXTRA ${CMAKE_BINARY_DIR}/packaging/conffiles)
include(CPack)
