"""Empty directories: who may write into them, with what modes, and on what.

test/e2e/common/storage/empty_dir.go
"""

from frame import busybox, equal, pause, test, until

MOUNT = "/test-volume"


def spec(script, medium, user):
    directory = {"medium": medium} if medium else {}
    made = {
        "containers": [busybox(script, volumeMounts=[{"name": "test-volume", "mountPath": MOUNT}])],
        "volumes": [{"name": "test-volume", "emptyDir": directory}],
        "securityContext": {"seLinuxOptions": {"level": "s0"}},
    }
    if user:
        made["containers"][0]["securityContext"] = {"runAsUser": user}
    return made


def file_system(medium):
    return f"grep ' {MOUNT} tmpfs ' /proc/mounts > /dev/null && echo tmpfs;" if medium else ""


for user, who in [(0, "root"), (1001, "non-root")]:
    for mode, shown in [("0644", "-rw-r--r--"), ("0666", "-rw-rw-rw-"), ("0777", "-rwxrwxrwx")]:
        for medium, what in [("", "default"), ("Memory", "tmpfs")]:

            @test(f"[sig-storage] EmptyDir volumes should support ({who},{mode},{what})")
            def written(world, user=user, mode=mode, shown=shown, medium=medium):
                file = f"{MOUNT}/test-file"
                script = f"{file_system(medium)} umask 0; echo -n 'mount-tester new file' > {file}; chmod {mode} {file}; stat -c %A {file}; cat {file}; stat -c %A {MOUNT}"
                wanted = ("tmpfs\n" if medium else "") + f"{shown}\nmount-tester new filedrwxrwxrwx\n"
                equal(world.output(spec(script, medium, user)), wanted)


for medium, what in [("", "default medium"), ("Memory", "tmpfs")]:

    @test(f"[sig-storage] EmptyDir volumes volume on {what} should have the correct mode")
    def mode(world, medium=medium):
        wanted = ("tmpfs\n" if medium else "") + "drwxrwxrwx\n"
        script = f"{file_system(medium)} stat -c %A {MOUNT}"
        equal(world.output(spec(script, medium, 0)), wanted)


@test("[sig-storage] EmptyDir volumes pod should support shared volumes between containers")
def shared(world):
    mounts = [{"name": "shared-data", "mountPath": "/usr/share/volumeshare"}]
    writer = busybox("echo Hello from the busy-box sub-container > /usr/share/volumeshare/shareddata.txt; sleep 100000", "sub", volumeMounts=mounts)
    main = pause("main", volumeMounts=mounts)
    volumes = [{"name": "shared-data", "emptyDir": {}}]
    pod = world.run_pod({"containers": [main, writer], "volumes": volumes})["metadata"]["name"]
    read = lambda: world.try_exec(pod, "cat", "/usr/share/volumeshare/shareddata.txt", container="main").stdout
    until(lambda: "Hello from the busy-box sub-container" in read(), what="the text")
