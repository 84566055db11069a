use super::program;

#[test]
fn code_and_constants_of_files_are_found_and_nothing_else() {
    let maps = "\
55d0e6a00000-55d0e6a40000 r--p 00000000 fe:00 1234   /usr/bin/keepcall
55d0e6a40000-55d0e6b00000 r-xp 00040000 fe:00 1234   /usr/bin/keepcall
55d0e6b00000-55d0e6b10000 rw-p 00100000 fe:00 1234   /usr/bin/keepcall
55d0e7000000-55d0e7021000 rw-p 00000000 00:00 0      [heap]
7f0000000000-7f0000001000 r--s 00000000 00:05 99     /dev/shm/x (deleted)
7f0000002000-7f0000003000 ---p 00000000 fe:00 77     /lib/x.so
7ffd00000000-7ffd00002000 r-xp 00000000 00:00 0      [vdso]
garbage
";
    let found = program(maps);
    assert_eq!(found, [(0x55d0_e6a0_0000, 0x4_0000), (0x55d0_e6a4_0000, 0xc_0000), (0x7f00_0000_0000, 0x1000)]);
}

#[test]
fn this_program_has_code() {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let here = this_program_has_code as *const () as usize;
    assert!(program(&maps).iter().any(|(start, length)| (*start..start + length).contains(&here)));
}
