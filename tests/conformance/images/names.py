"""Names of the images: one that stands for all of upstream's test images, and small ones of busybox."""

AGNHOST = "registry.k8s.io/e2e-test-images/agnhost:2.99"
BUSYBOX = "registry.k8s.io/e2e-test-images/busybox:1.99"
HTTPD = "registry.k8s.io/e2e-test-images/httpd:2.4.38-4"
NEW_HTTPD = "registry.k8s.io/e2e-test-images/httpd:2.4.39-4"
PAUSE = "registry.k8s.io/pause:3.99"
NGINX = "registry.k8s.io/e2e-test-images/nginx:1.14-4"
STAND_IN = [AGNHOST, BUSYBOX, HTTPD, NEW_HTTPD, PAUSE, NGINX]

# busybox alone, by its own shell.
SMALL = "conformance.test/busybox:1"
# Its entry point writes its arguments: in the place of agnhost's entrypoint-tester.
TESTER = "conformance.test/tester:1"
# Data without a program, in the place of the kitten.
KITTEN = "conformance.test/data:1"
# A server that answers gRPC health checks.
GRPC = "conformance.test/grpc:1"
