"""Names of the image that stands for all of upstream's test images."""

AGNHOST = "registry.k8s.io/e2e-test-images/agnhost:2.99"
BUSYBOX = "registry.k8s.io/e2e-test-images/busybox:1.99"
HTTPD = "registry.k8s.io/e2e-test-images/httpd:2.4.38-4"
NEW_HTTPD = "registry.k8s.io/e2e-test-images/httpd:2.4.39-4"
PAUSE = "registry.k8s.io/pause:3.99"
NGINX = "registry.k8s.io/e2e-test-images/nginx:1.14-4"
IMAGES = [AGNHOST, BUSYBOX, HTTPD, NEW_HTTPD, PAUSE, NGINX]
