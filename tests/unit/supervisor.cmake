# llmd_test() lines of this area
llmd_test(NAME test_runtime_dir SOURCES unit/test_runtime_dir.c LIBS common LABELS unit)
llmd_test(NAME test_config_file SOURCES unit/test_config_file.c LIBS common LABELS unit)
