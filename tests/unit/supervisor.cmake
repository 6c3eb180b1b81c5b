# llmd_test() lines of this area
llmd_test(NAME test_runtime_dir SOURCES unit/test_runtime_dir.c LIBS common LABELS unit)
llmd_test(NAME test_config_file SOURCES unit/test_config_file.c LIBS common LABELS unit)
llmd_test(NAME test_backoff SOURCES unit/test_backoff.c LIBS supervisor LABELS unit)
llmd_test(NAME test_process SOURCES unit/test_process.c LIBS supervisor LABELS unit)
llmd_test(NAME test_team SOURCES unit/test_team.c LIBS supervisor LABELS unit)
llmd_test(NAME test_rate SOURCES unit/test_rate.c LIBS supervisor LABELS unit)
llmd_test(NAME test_notice SOURCES unit/test_notice.c LIBS init LABELS unit)
llmd_test(NAME test_after_death SOURCES unit/test_after_death.c LIBS init LABELS unit)
