# llmd_test() lines of this area

llmd_test(NAME test_system
  SOURCES proc/test_system.c proc/system.c proc/http_client.c
  LIBS proto
  TIMEOUT 600 LABELS proc)

add_executable(fake_child proc/fake_child.c)
target_link_libraries(fake_child PRIVATE proto)
llmd_test(NAME test_supervisor
  SOURCES proc/test_supervisor.c proc/llmd_rig.c
  LIBS proto
  TIMEOUT 180 LABELS proc)
add_dependencies(test_supervisor fake_child llmd)
