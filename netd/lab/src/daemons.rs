//! Programs of others in the lab: FRR, BIRD, GoBGP.

use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use crate::{Lab, eventually};

impl Lab {
    /// Starts FRR with zebra; its processes.
    pub fn frr(&mut self, name: &str, config: &str) -> Vec<u32> {
        let mut pids = Vec::new();
        self.ensure_space(name);
        let dir = self.dir.path().join(format!("{name}-frr"));
        std::fs::create_dir(&dir).unwrap();
        // FRR gives up root for a user of its own.
        for (path, mode) in [(self.dir.path(), 0o755), (dir.as_path(), 0o777)] {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
        }
        let config = self.file(&format!("{name}.conf"), config);
        let (vty, zserv) = (
            dir.display().to_string(),
            dir.join("zserv").display().to_string(),
        );
        for daemon in ["zebra", "bgpd", "bfdd"] {
            let pid = dir.join(daemon).display().to_string();
            let mut command = format!(
                "/usr/lib/frr/{daemon} -f {} -i {pid} -z {zserv} --vty_socket {vty} -A 127.0.0.1",
                config.display()
            );
            if daemon == "bfdd" {
                let control = dir.join("bfdd.sock");
                command.push_str(&format!(" --bfdctl {}", control.display()));
            }
            pids.push(self.daemon(name, &command));
            let socket = dir.join(format!("{daemon}.vty"));
            eventually(&format!("{daemon} of {name} runs"), || socket.exists());
        }
        pids
    }

    /// Starts BIRD; its process.
    pub fn bird(&mut self, name: &str, config: &str) -> u32 {
        self.ensure_space(name);
        let config = self
            .file(&format!("{name}.conf"), config)
            .display()
            .to_string();
        let control = self
            .dir
            .path()
            .join(format!("{name}.ctl"))
            .display()
            .to_string();
        self.daemon(name, &format!("/usr/sbin/bird -f -c {config} -s {control}"))
    }

    /// Starts GoBGP; its process.
    pub fn gobgp(&mut self, name: &str, config: &str) -> u32 {
        self.ensure_space(name);
        let config = self
            .file(&format!("{name}.toml"), config)
            .display()
            .to_string();
        self.daemon(
            name,
            &format!("/usr/bin/gobgpd -f {config} --api-hosts 127.0.0.1:50051"),
        )
    }

    /// Starts a program in a namespace; its number as a process.
    pub fn daemon(&mut self, name: &str, command: &str) -> u32 {
        let log = std::fs::File::create(self.dir.path().join(format!("{name}.log"))).unwrap();
        let child = Command::new("ip")
            .args(["netns", "exec", &self.space(name)])
            .args(command.split_whitespace())
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        // `ip netns exec` becomes the program.
        let pid = child.id();
        self.daemons.push(child);
        pid
    }
}
