package e2e

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// registry is where the chart's images are.
const registry = "apss.local"

// image is one that tests run.
type image struct {
	name       string
	entrypoint string            // JSON
	programs   map[string]string // of a folder, by their paths in the image
	check      []string          // runs something that ends well at once
}

// loaded has one image of our programs for all tests in the cluster, and returns its name.
var loaded = sync.OnceValues(func() (string, error) {
	programs := map[string]string{
		"bin/apss-agent": "apss-agent", "bin/apss-relay": "apss-relay", "bin/apss-webhook": "apss-webhook",
		"bin/witness": "witness", "bin/nginx": "witness", "bin/sh": "witness", "bin/cat": "witness",
	}
	tag, err := content(bin, programs)
	if err != nil {
		return "", err
	}
	i := image{registry + "/e2e:" + tag, `["/bin/apss-agent"]`, programs, []string{"/bin/witness", "nothing"}}
	return i.name, provide(bin, i)
})

// charts has the images that the chart names in the cluster, and returns their tag; none when nothing can be loaded.
var charts = sync.OnceValues(func() (string, error) { return chartsOf(bin) })

// chartsOf is charts with the programs of a folder.
func chartsOf(folder string) (string, error) {
	if os.Getenv("APSS_E2E_LOAD") == "" {
		return "", nil
	}
	programs := map[string]string{"apss-agent": "apss-agent", "apss-relay": "apss-relay", "apss-webhook": "apss-webhook"}
	tag, err := content(folder, programs)
	if err != nil {
		return "", err
	}
	var images []image
	for p := range programs {
		images = append(images, image{registry + "/" + p + ":" + tag, `["/` + p + `"]`, map[string]string{p: p}, []string{"/" + p, "-version"}})
	}
	return tag, provide(folder, images...)
}

// content is a tag that says what programs are, by their paths: the same ones are loaded once, whoever runs the tests how
// often.
func content(folder string, programs map[string]string) (string, error) {
	sum := sha256.New()
	for _, path := range slices.Sorted(maps.Keys(programs)) {
		b, err := os.ReadFile(filepath.Join(folder, programs[path]))
		if err != nil {
			return "", fmt.Errorf("%w: run make e2e", err)
		}
		fmt.Fprintf(sum, "%s %d\n", path, len(b))
		sum.Write(b)
	}
	return hex.EncodeToString(sum.Sum(nil))[:16], nil
}

// provide loads images that the nodes have not, and keeps them there until the tests end: a kubelet whose disk is nearly full
// removes what no container uses.
func provide(folder string, images ...image) error {
	client, err := connect()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	nodes, err := client.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	for _, i := range images {
		if there := func(n corev1.Node) bool {
			return slices.ContainsFunc(n.Status.Images, func(c corev1.ContainerImage) bool { return slices.Contains(c.Names, i.name) })
		}; slices.ContainsFunc(nodes.Items, func(n corev1.Node) bool { return !there(n) }) {
			if err := i.load(ctx, folder); err != nil {
				return err
			}
		}
	}
	return keep(ctx, client, folder, images)
}

// keep runs a pod of all images, and leaves it there. What a node has not after all is loaded now.
func keep(ctx context.Context, client *kubernetes.Clientset, folder string, images []image) error {
	namespace, err := ours(ctx, client)
	if err != nil {
		return err
	}
	c := &cluster{namespace: namespace}
	p := c.pod("")
	p.GenerateName = "images-"
	for n, i := range images {
		container := c.container(fmt.Sprint("image-", n), 65532, nil, i.check...)
		container.Image = i.name
		p.Spec.Containers = append(p.Spec.Containers, container)
	}
	pods := client.CoreV1().Pods(namespace)
	if p, err = pods.Create(ctx, p, metav1.CreateOptions{}); err != nil {
		return err
	}
	again := map[string]bool{}
	for p.Status.Phase != corev1.PodSucceeded {
		for n, s := range p.Status.ContainerStatuses {
			if w := s.State.Waiting; w != nil && strings.Contains(w.Reason, "ImagePull") && !again[s.Image] {
				again[s.Image] = true
				if err := images[n].load(ctx, folder); err != nil {
					return err
				}
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for the images %+v: %w: %+v", images, ctx.Err(), p.Status.ContainerStatuses)
		case <-time.After(every / 5):
		}
		if p, err = pods.Get(ctx, p.Name, metav1.GetOptions{}); err != nil {
			return err
		}
	}
	return nil
}

// load makes an image of programs of a folder and loads it into the cluster.
func (i image) load(ctx context.Context, folder string) (err error) {
	dir, err := os.MkdirTemp("", "apss-e2e-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if err := os.Chmod(dir, 0o755); err != nil {
		return err
	}
	for path, content := range map[string]string{"etc/passwd": "root:x:0:0::/:/nologin\n", "tmp/.keep": "", "usr/bin/.keep": ""} {
		if err := write(filepath.Join(dir, path), []byte(content), 0o644); err != nil {
			return err
		}
	}
	for path, program := range i.programs {
		content, err := os.ReadFile(filepath.Join(folder, program))
		if err != nil {
			return fmt.Errorf("%w: run make e2e", err)
		}
		if err := write(filepath.Join(dir, path), content, 0o755); err != nil {
			return err
		}
	}
	command := append(strings.Fields(os.Getenv("APSS_E2E_LOAD")), i.name, dir, i.entrypoint)
	if out, err := exec.CommandContext(ctx, command[0], command[1:]...).CombinedOutput(); err != nil {
		return fmt.Errorf("APSS_E2E_LOAD: %w: %s", err, out)
	}
	return nil
}

func write(path string, content []byte, mode os.FileMode) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, content, mode)
}
