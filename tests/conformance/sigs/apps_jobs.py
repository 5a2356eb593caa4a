"""[sig-apps]: test/e2e/apps/{job,cronjob}.go."""

import time

from frame import BUSYBOX, MERGE, STRATEGIC, Events, check, condition_of, container, equal, test, word

from .operations import discovery, operations
from .workloads import BATCH, controlled


def job(name, command, parallelism=2, completions=4, restart="Never", volume=None, **spec):
    one = container("c", BUSYBOX, command=["/bin/sh", "-c", command], volumeMounts=[{"name": "data", "mountPath": "/data"}])
    return {"metadata": {"name": name}, "spec": {
        "parallelism": parallelism, "completions": completions, "backoffLimit": 6, "manualSelector": False, **spec,
        "template": {"metadata": {"labels": {"job": name}}, "spec": {
            "restartPolicy": restart, "terminationGracePeriodSeconds": 1, "containers": [one],
            "volumes": [{"name": "data", **(volume or {"emptyDir": {}})}]}}}}


FAIL_ONCE = "if [ -f /data/foo ]; then exit 0; else touch /data/foo; exit 1; fi"


def job_complete(w, name, completions, seconds=180):
    def condition():
        found = w.api.get(w.apis(BATCH, "jobs", name))
        check(condition_of(found, "Failed") != "True", found["status"])
        return found["status"].get("succeeded") == completions and condition_of(found, "Complete") == "True" and found

    return w.until(condition, seconds, f"job {name} complete")


def job_pods(w, name, running=None):
    pods = w.pods(f"job={name}")
    return pods if running is None else [p for p in pods if p["status"].get("phase") == "Running"]


@test("[sig-apps] Job should delete a job")
def job_delete(w):
    path = w.apis(BATCH, "jobs")
    w.api.create(path, job("foo", "sleep 1000000"))
    w.until(lambda: len(job_pods(w, "foo", True)) == 2, 120, "two pods")
    w.api.delete(f"{path}/foo", {"propagationPolicy": "Background"})
    w.gone(f"{path}/foo", 60)
    w.until(lambda: not job_pods(w, "foo"), 60, "no pods")


@test("[sig-apps] Job should adopt matching orphans and release non-matching pods")
def job_adopt(w):
    path = w.apis(BATCH, "jobs")
    owner = w.api.create(path, job("adopt-release", "sleep 1000000"))
    w.until(lambda: len(job_pods(w, "adopt-release", True)) == 2, 120, "two pods")
    pod = job_pods(w, "adopt-release")[0]["metadata"]["name"]
    w.api.retry_update(w.core("pods", pod), lambda p: p["metadata"].update(ownerReferences=[]))
    w.until(lambda: controlled(w.get_pod(pod), owner), 60, "adopted")
    w.api.retry_update(w.core("pods", pod), lambda p: p["metadata"].update(labels=None))
    w.until(lambda: not controlled(w.get_pod(pod), owner), 60, "released")


@test("[sig-apps] Job should allow to use a pod failure policy to ignore failure matching on DisruptionTarget condition")
def job_disruption(w):
    path, name, node = w.apis(BATCH, "jobs"), "pod-failure-ignore", w.nodes()[0]["metadata"]["name"]
    command = "if [ -f /data/foo-$JOB_COMPLETION_INDEX ]; then exit 0; fi; touch /data/foo-$JOB_COMPLETION_INDEX; sleep 1000000"
    body = job(name, command, parallelism=2, completions=2, backoffLimit=0, completionMode="Indexed",
               volume={"hostPath": {"path": f"/tmp/{w.ns}", "type": "DirectoryOrCreate"}},
               podFailurePolicy={"rules": [{"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}]})
    body["spec"]["template"]["spec"]["nodeName"] = node
    w.api.create(path, body)
    w.until(lambda: len(job_pods(w, name, True)) == 2, 120, "two pods")
    time.sleep(2)
    for pod in job_pods(w, name, True):
        w.api.create(w.core("pods", pod["metadata"]["name"]) + "/eviction",
                     {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod["metadata"]["name"], "namespace": w.ns}})
        w.gone(w.core("pods", pod["metadata"]["name"]), 120)
    w.until(lambda: condition_of(w.api.get(f"{path}/{name}"), "SuccessCriteriaMet") == "True", 180, "SuccessCriteriaMet")
    job_complete(w, name, 2)


@test("[sig-apps] Job should allow to use the pod failure policy on exit code to fail the job early")
def job_fail_early(w):
    path, name, node = w.apis(BATCH, "jobs"), "pod-failure-failjob", w.nodes()[0]["metadata"]["name"]
    body = job(name, FAIL_ONCE, volume={"hostPath": {"path": f"/tmp/{w.ns}", "type": "DirectoryOrCreate"}},
               podFailurePolicy={"rules": [{"action": "FailJob", "onExitCodes": {"operator": "In", "values": [1]}}]})
    body["spec"]["template"]["spec"]["nodeName"] = node
    w.api.create(path, body)
    found = w.until(lambda: (lambda j: j if condition_of(j, "FailureTarget") == "True" else None)(
        w.api.get(f"{path}/{name}")), 120, "FailureTarget")
    reason = {c["type"]: c.get("reason") for c in found["status"]["conditions"]}
    equal(reason["FailureTarget"], "PodFailurePolicy", "reason")
    w.until(lambda: condition_of(w.api.get(f"{path}/{name}"), "Failed") == "True", 120, "Failed")


@test("[sig-apps] Job should create pods for an Indexed job with completion indexes and specified hostname")
def job_indexed(w):
    path, name = w.apis(BATCH, "jobs"), "indexed-job"
    w.api.create(path, job(name, "exit 0", completionMode="Indexed"))
    job_complete(w, name, 4)
    seen = []
    for pod in job_pods(w, name):
        index = pod["metadata"]["annotations"]["batch.kubernetes.io/job-completion-index"]
        equal(pod["spec"]["hostname"], f"{name}-{index}", "hostname")
        seen.append(int(index))
    equal(sorted(seen), [0, 1, 2, 3], "indexes")


@test("[sig-apps] Job should run a job to completion when tasks sometimes fail and are locally restarted")
def job_restarted(w):
    w.api.create(w.apis(BATCH, "jobs"), job("fail-once-local", FAIL_ONCE, restart="OnFailure"))
    job_complete(w, "fail-once-local", 4)


@test("[sig-apps] Job should apply changes to a job status")
def job_status(w):
    path, name = w.apis(BATCH, "jobs"), f"e2e-{word()}"
    w.api.create(path, job(name, "sleep 1000000", backoffLimit=3))
    w.until(lambda: len(job_pods(w, name, True)) == 2, 120, "two pods")
    # Terminal conditions have rules of their own; the tests set an annotation and startTime.
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    patched = w.api.patch(f"{path}/{name}/status",
                          {"metadata": {"annotations": {"patchedstatus": "true"}}, "status": {"conditions": [
                              {"type": "CustomConditionType", "status": "True", "lastTransitionTime": now}]}}, MERGE)
    equal(patched["metadata"]["annotations"].get("patchedstatus"), "true", "annotation")
    check(condition_of(patched, "CustomConditionType") == "True", patched["status"])
    custom = {"type": "AdditionalCustomConditionType", "status": "True", "lastTransitionTime": now}
    updated = w.api.retry_update(f"{path}/{name}/status", lambda j: j["status"]["conditions"].append(custom))
    check(condition_of(updated, "AdditionalCustomConditionType") == "True", updated["status"])
    found = w.api.get(f"{path}/{name}/status")
    check(condition_of(found, "AdditionalCustomConditionType") == "True", found["status"])


@test("[sig-apps] Job should manage the lifecycle of a job")
def job_lifecycle(w):
    path, name = w.apis(BATCH, "jobs"), f"e2e-{word()}"
    body = job(name, "exit 0", parallelism=2, completions=2, suspend=True, backoffLimit=6)
    body["metadata"]["labels"] = {"e2e-job-label": name}
    events = Events(w, path, labelSelector=f"e2e-job-label={name}")
    w.api.create(path, body)
    events.wait("ADDED")
    patched = w.api.patch(f"{path}/{name}", {"metadata": {"labels": {name: "patched"}}}, STRATEGIC)
    equal(patched["metadata"]["labels"][name], "patched", "label")
    events.wait("MODIFIED", lambda j: j["metadata"]["labels"].get(name) == "patched")

    def change(found):
        found["spec"]["suspend"] = False
        found["metadata"].setdefault("annotations", {})["updated"] = "true"

    w.api.retry_update(f"{path}/{name}", change)
    events.wait("MODIFIED", lambda j: j["metadata"].get("annotations", {}).get("updated") == "true")
    job_complete(w, name, 2)
    everywhere = f"/apis/batch/v1/jobs?labelSelector=e2e-job-label%3D{name}"
    equal(len(w.api.get(everywhere)["items"]), 1, "listed")
    w.api.call("DELETE", f"{path}?labelSelector=e2e-job-label%3D{name}", {"propagationPolicy": "Background"})
    events.wait("DELETED")
    w.until(lambda: not w.api.get(everywhere)["items"], 60, "gone")


ODD_FAILS = 'exit $(($JOB_COMPLETION_INDEX % 2))'


def job_condition(w, name, kind, reason=None, seconds=180):
    def condition():
        found = w.api.get(w.apis(BATCH, "jobs", name))
        wanted = [c for c in found["status"].get("conditions", []) if c["type"] == kind and c["status"] == "True"]
        if wanted and reason:
            equal(wanted[0].get("reason"), reason, kind)
        return found if wanted else None

    return w.until(condition, seconds, f"job {name} {kind}")


def succeeds_by_policy(w, name, command, completions, rule, succeeded, indexes=None, **spec):
    w.api.create(w.apis(BATCH, "jobs"), job(name, command, completions=completions, completionMode="Indexed",
                                            successPolicy={"rules": [rule]}, **spec))
    job_condition(w, name, "SuccessCriteriaMet", "SuccessPolicy")
    status = job_condition(w, name, "Complete", "SuccessPolicy")["status"]
    equal([status.get(f, 0) for f in ["succeeded", "active", "ready", "terminating"]], [succeeded, 0, 0, 0], "status")
    check("ready" in status and "terminating" in status, status)
    if indexes is not None:
        equal(status.get("completedIndexes"), indexes, "completedIndexes")
    return status


@test("[sig-apps] Job with successPolicy should succeeded when all indexes succeeded")
def job_policy_all(w):
    status = succeeds_by_policy(w, "with-success-policy-all", "exit 0", 2, {"succeededCount": 2}, 2)
    equal(status.get("failed", 0), 0, "failed")


@test("[sig-apps] Job with successPolicy succeededIndexes rule should succeeded even when some indexes remain pending")
def job_policy_indexes(w):
    succeeds_by_policy(w, "with-success-policy-indexes", ODD_FAILS, 5, {"succeededIndexes": "0"}, 1, "0")


@test("[sig-apps] Job with successPolicy succeededCount rule should succeeded even when some indexes remain pending")
def job_policy_count(w):
    succeeds_by_policy(w, "with-success-policy-count", ODD_FAILS, 5, {"succeededCount": 1}, 1, "0", backoffLimit=2147483647)


def per_index(w, name, command, wanted, **spec):
    body = job(name, command, completionMode="Indexed", **spec)
    del body["spec"]["backoffLimit"]
    w.api.create(w.apis(BATCH, "jobs"), body)
    status = job_condition(w, name, "Failed")["status"]
    equal([status.get(f) for f in ["failedIndexes", "completedIndexes", "failed", "succeeded"]], wanted, "status")


@test("[sig-apps] Job should execute all indexes despite some failing when using backoffLimitPerIndex")
def job_per_index(w):
    per_index(w, "with-backoff-limit-per-index", ODD_FAILS, ["1,3", "0,2", 4, 2], backoffLimitPerIndex=1)


@test("[sig-apps] Job should terminate job execution when the number of failed indexes exceeds maxFailedIndexes")
def job_max_failed(w):
    per_index(w, "with-max-failed-indexes", "exit 1", ["0", None, 1, None], parallelism=1, backoffLimitPerIndex=0,
              maxFailedIndexes=0)


@test("[sig-apps] Job should mark indexes as failed when the FailIndex action is matched in podFailurePolicy")
def job_fail_index(w):
    per_index(w, "matching-fail-index-action", ODD_FAILS, ["1", "0", 1, 1], completions=2, backoffLimitPerIndex=1,
              podFailurePolicy={"rules": [{"action": "FailIndex", "onExitCodes": {"operator": "In", "values": [1]}}]})


def cron_job(name, policy="Allow", suspend=False, schedule="*/1 * * * ?"):
    return {"metadata": {"name": name}, "spec": {"schedule": schedule, "concurrencyPolicy": policy, "suspend": suspend,
            "jobTemplate": {"spec": {"parallelism": 1, "completions": 1, "template": {"spec": {
                "restartPolicy": "OnFailure", "volumes": [{"name": "data", "emptyDir": {}}], "terminationGracePeriodSeconds": 0,
                "containers": [container("c", BUSYBOX, command=["sleep", "300"],
                                         volumeMounts=[{"name": "data", "mountPath": "/data"}])]}}}}}}


def cron_active(w, name, count, seconds=150):
    return w.until(lambda: len(w.api.get(w.apis(BATCH, "cronjobs", name))["status"].get("active", [])) >= count, seconds,
                   f"{count} active")


def active_jobs(w):
    return [j for j in w.api.get(w.apis(BATCH, "jobs"))["items"] if not j["status"].get("completionTime")
            and condition_of(j, "Failed") != "True"]


@test("[sig-apps] CronJob should schedule multiple jobs concurrently")
def cron_concurrent(w):
    w.api.create(w.apis(BATCH, "cronjobs"), cron_job("concurrent"))
    cron_active(w, "concurrent", 2)
    check(len(active_jobs(w)) >= 2)
    w.api.delete(w.apis(BATCH, "cronjobs", "concurrent"), {"propagationPolicy": "Background"})


@test("[sig-apps] CronJob should not schedule jobs when suspended [Slow]",
      "watched for 75 s, not for five minutes")
def cron_suspended(w):
    w.api.create(w.apis(BATCH, "cronjobs"), cron_job("suspended", suspend=True))
    # Upstream watches for five minutes.
    w.never(lambda: w.api.get(w.apis(BATCH, "cronjobs", "suspended"))["status"].get("active"), 75, "active")
    check(not w.api.get(w.apis(BATCH, "jobs"))["items"])


@test("[sig-apps] CronJob should not schedule new jobs when ForbidConcurrent [Slow]",
      "watched for 70 s more")
def cron_forbid(w):
    w.api.create(w.apis(BATCH, "cronjobs"), cron_job("forbid", "Forbid"))
    cron_active(w, "forbid", 1)
    equal((len(w.api.get(w.apis(BATCH, "cronjobs", "forbid"))["status"]["active"]), len(active_jobs(w))), (1, 1), "active")
    w.never(lambda: len(w.api.get(w.apis(BATCH, "cronjobs", "forbid"))["status"]["active"]) > 1, 70, "two active")


@test("[sig-apps] CronJob should replace jobs when ReplaceConcurrent")
def cron_replace(w):
    w.api.create(w.apis(BATCH, "cronjobs"), cron_job("replace", "Replace"))
    cron_active(w, "replace", 1)
    equal((len(w.api.get(w.apis(BATCH, "cronjobs", "replace"))["status"]["active"]), len(active_jobs(w))), (1, 1), "active")
    old = w.api.get(w.apis(BATCH, "jobs"))["items"][0]["metadata"]["name"]

    def replaced():
        jobs = w.api.get(w.apis(BATCH, "jobs"))["items"]
        check(len(jobs) <= 2, jobs)
        return len(jobs) == 1 and jobs[0]["metadata"]["name"] != old

    w.until(replaced, 120, "replaced")


@test("[sig-apps] CronJob should support CronJob API operations")
def cron_api(w):
    discovery(w, "batch", "v1", "cronjobs", "cronjobs/status")
    path = w.apis(BATCH, "cronjobs")
    name, _, events, selector = operations(w, path, {
        "metadata": {"generateName": "e2e-example-test"}, **{k: v for k, v in cron_job("x", schedule="* */1 * * ?").items()
                                                              if k == "spec"}}, everywhere="/apis/batch/v1/cronjobs")
    at = "2026-01-01T00:00:00Z"
    status = w.api.patch(f"{path}/{name}/status", {"metadata": {"annotations": {"patchedstatus": "true"}},
                                                   "status": {"lastScheduleTime": at}}, MERGE)
    equal((status["status"]["lastScheduleTime"], status["metadata"]["annotations"].get("patchedstatus")), (at, "true"), "status")
    later = "2026-01-01T01:00:00Z"
    status = w.api.retry_update(f"{path}/{name}/status", lambda c: c["status"].update(lastScheduleTime=later))
    equal(status["status"]["lastScheduleTime"], later, "status")
    equal(w.api.get(f"{path}/{name}/status")["metadata"]["uid"], status["metadata"]["uid"], "uid")
    # With finalizers for foreground deletion, as upstream: it may stay a little.
    w.api.delete(f"{path}/{name}", {"propagationPolicy": "Background"})
    w.gone(f"{path}/{name}", 30)
    equal(len(w.api.get(path + selector)["items"]), 2, "left")
    w.api.call("DELETE", path + selector, {"propagationPolicy": "Background"})
    w.until(lambda: not w.api.get(path + selector)["items"], 60, "gone")
