use super::*;

const HYBRID: &str = "\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
33 31 0:30 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime shared:9 - cgroup cgroup rw,memory
39 31 0:36 / /sys/fs/cgroup/pids rw,relatime - cgroup cgroup rw,pids
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
";

const UNIFIED: &str = "\
24 22 0:22 / /sys rw,nosuid - sysfs sysfs rw
30 24 0:26 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime shared:4 - cgroup2 cgroup2 rw,nsdelegate
";

/// A recorded directory of a hierarchy.
fn record(root: &Path, files: &[(&str, &str)]) {
    for (path, content) in files {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
}

fn read(root: &Path, path: &str) -> String {
    fs::read_to_string(root.join(path)).unwrap()
}

fn limits() -> Resources {
    Resources {
        cpu_shares: Some(1024),
        cpu_quota_us: Some(50_000),
        cpu_period_us: Some(100_000),
        memory_limit_bytes: Some(64 << 20),
        pids_limit: Some(100),
        ..Resources::default()
    }
}

#[test]
fn the_generation_is_told_by_the_mounts() {
    let Some(Cgroups::V1(controllers)) = Cgroups::parse(HYBRID) else {
        panic!("v1")
    };
    assert_eq!(
        controllers["cpuacct"],
        Path::new("/sys/fs/cgroup/cpu,cpuacct")
    );
    assert_eq!(controllers["memory"], Path::new("/sys/fs/cgroup/memory"));
    assert_eq!(
        Cgroups::parse(UNIFIED),
        Some(Cgroups::V2("/sys/fs/cgroup".into()))
    );
    assert_eq!(
        Cgroups::parse("24 22 0:22 / /sys rw - sysfs sysfs rw\n"),
        None
    );
}

#[test]
fn groups_stand_by_quality_of_service() {
    let at = |qos| pod_group("peapod", qos, "u1").display().to_string();
    assert_eq!(at(QosClass::Guaranteed), "/peapod/kubepods/podu1");
    assert_eq!(at(QosClass::Burstable), "/peapod/kubepods/burstable/podu1");
    assert_eq!(
        at(QosClass::BestEffort),
        "/peapod/kubepods/besteffort/podu1"
    );
}

#[test]
fn v1_limits_are_written_to_each_controller() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    record(
        root,
        &[
            ("memory/p/memory.limit_in_bytes", "9223372036854771712"),
            (
                "memory/p/memory.memsw.limit_in_bytes",
                "9223372036854771712",
            ),
        ],
    );
    let controllers = ["cpu", "memory", "pids"].map(|name| (name.to_owned(), root.join(name)));
    let cgroups = Cgroups::V1(controllers.into());
    cgroups.apply(Path::new("/p"), &limits()).unwrap();
    for (file, value) in [
        ("cpu/p/cpu.shares", "1024"),
        ("cpu/p/cpu.cfs_quota_us", "50000"),
        ("memory/p/memory.limit_in_bytes", "67108864"),
        ("memory/p/memory.memsw.limit_in_bytes", "67108864"),
        ("pids/p/pids.max", "100"),
    ] {
        assert_eq!(read(root, file), value, "{file}");
    }
}

#[test]
fn v1_usage_is_read_from_each_controller() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    record(
        root,
        &[
            ("memory/p/memory.usage_in_bytes", "1000000\n"),
            (
                "memory/p/memory.stat",
                "cache 5\ntotal_rss 400000\ntotal_inactive_file 300000\ntotal_pgfault 7\ntotal_pgmajfault 2\n",
            ),
            (
                "memory/p/memory.oom_control",
                "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n",
            ),
            ("cpuacct/p/cpuacct.usage", "123456789\n"),
            ("pids/p/pids.current", "4\n"),
            ("pids/p/pids.events", "max 0\n"),
            ("pids/p/c1/pids.events", "max 4\n"),
            ("pids/p/c2/pids.events", "max 1\n"),
        ],
    );
    let controllers = ["cpuacct", "memory", "pids"].map(|name| (name.to_owned(), root.join(name)));
    let cgroups = Cgroups::V1(controllers.into());
    let expected = Stats {
        cpu_usage_ns: 123_456_789,
        memory_usage_bytes: 1_000_000,
        memory_working_set_bytes: 700_000,
        memory_rss_bytes: 400_000,
        page_faults: 7,
        major_page_faults: 2,
        pids: 4,
    };
    assert_eq!(cgroups.stats(Path::new("/p")).unwrap(), expected);
    assert_eq!(cgroups.oom_kills(Path::new("/p")), 3);
    assert_eq!(cgroups.oom_kills(Path::new("/gone")), 0);
    assert_eq!(cgroups.refused_forks(Path::new("/p")), 5);
    assert_eq!(cgroups.refused_forks(Path::new("/gone")), 0);
    assert!(matches!(
        cgroups.stats(Path::new("/gone")),
        Err(Error::NotFound { .. })
    ));
}

#[test]
fn v2_limits_are_written_and_controllers_passed_on() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    record(
        root,
        &[
            (
                "cgroup.controllers",
                "cpuset cpu io memory hugetlb pids rdma misc\n",
            ),
            ("cgroup.subtree_control", "cpu memory\n"),
            ("a/p/memory.swap.max", "max\n"),
        ],
    );
    Cgroups::V2(root.to_path_buf())
        .apply(Path::new("/a/p"), &limits())
        .unwrap();
    for (file, value) in [
        ("cgroup.subtree_control", "+cpuset +pids +io +hugetlb"),
        ("a/p/cpu.weight", "39"),
        ("a/p/cpu.max", "50000 100000"),
        ("a/p/memory.max", "67108864"),
        ("a/p/memory.swap.max", "0"),
        ("a/p/pids.max", "100"),
    ] {
        assert_eq!(read(root, file), value, "{file}");
    }
}

#[test]
fn v2_usage_is_read_from_one_group() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    record(
        root,
        &[
            ("p/memory.current", "2000000\n"),
            (
                "p/memory.stat",
                "anon 600000\nfile 900000\ninactive_file 500000\npgfault 8\npgmajfault 1\n",
            ),
            (
                "p/memory.events",
                "low 0\nhigh 0\nmax 9\noom 2\noom_kill 1\n",
            ),
            (
                "p/cpu.stat",
                "usage_usec 123456\nuser_usec 100000\nsystem_usec 23456\n",
            ),
            ("p/pids.current", "6\n"),
            ("p/pids.events", "max 7\n"),
        ],
    );
    let cgroups = Cgroups::V2(root.to_path_buf());
    let stats = cgroups.stats(Path::new("/p")).unwrap();
    assert_eq!(
        (stats.cpu_usage_ns, stats.memory_working_set_bytes),
        (123_456_000, 1_500_000)
    );
    assert_eq!((stats.memory_rss_bytes, stats.pids), (600_000, 6));
    assert_eq!(cgroups.oom_kills(Path::new("/p")), 1);
    assert_eq!(cgroups.refused_forks(Path::new("/p")), 7);
}

#[test]
fn a_group_is_removed_with_those_below_it() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    fs::create_dir_all(root.join("p/c1")).unwrap();
    let cgroups = Cgroups::V2(root.to_path_buf());
    cgroups.remove(Path::new("/p")).unwrap();
    cgroups.remove(Path::new("/p")).unwrap();
    assert!(!root.join("p").exists());
}
