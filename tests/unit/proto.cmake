# llmd_test() lines of this area
