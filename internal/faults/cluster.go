package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/candysession/session/internal/testdb"
)

// A cluster is three Galera nodes. They listen on 127.0.0.11 to 127.0.0.13, so
// that the network between them can be cut. Each node has an app server that
// uses it through HAProxy, and the other nodes when it is down.
type cluster struct {
	dir     string
	nodes   [3]*server
	agents  [3]*healthAgent
	haproxy *exec.Cmd
	apps    []*app
	load    *load
}

const namespace = "session-faults"

// inNamespace runs this program again in a separate network namespace, and
// returns its output.
func inNamespace(args ...string) (printed string, err error) {
	for _, args := range [][]string{{"netns", "add", namespace}, {"netns", "exec", namespace, "ip", "link", "set", "lo", "up"}} {
		if err := command("ip", args...); err != nil && !strings.Contains(err.Error(), "File exists") {
			return "", err
		}
	}
	defer exec.Command("ip", "netns", "delete", namespace).Run()
	self, err := os.Executable()
	if err != nil {
		return "", err
	}
	cmd := exec.Command("ip", append([]string{"netns", "exec", namespace, self}, args...)...)
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = io.MultiWriter(os.Stdout, &out), os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	err = cmd.Run()
	return out.String(), err
}

// newCluster starts a cluster, HAProxy and an app server for each node.
func newCluster(template, hash string, log *slog.Logger) (_ *cluster, err error) {
	c := &cluster{}
	if c.dir, err = tempDir(); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			c.close()
		}
	}()
	if err := os.Chmod(c.dir, 0o755); err != nil {
		return nil, err
	}
	peers, err := c.prepareNodes()
	if err != nil {
		return nil, err
	}
	if err := c.fillFirst(template, hash); err != nil {
		return nil, err
	}
	if err := c.join(peers); err != nil {
		return nil, err
	}
	ports, err := c.balance()
	if err != nil {
		return nil, err
	}
	return c, c.startApps(ports, log)
}

// prepareNodes creates the nodes without their data, and returns the address
// by which a node finds the cluster.
func (c *cluster) prepareNodes() (peers string, err error) {
	var addresses []string
	for i := range c.nodes {
		host := fmt.Sprintf("127.0.0.1%d", i+1)
		addresses = append(addresses, host+":4567")
		dir := filepath.Join(c.dir, fmt.Sprint(i+1))
		if err := os.Mkdir(dir, 0o755); err != nil {
			return "", err
		}
		n := newServer(dir, host)
		// The transfer scripts do not work for root.
		for j, arg := range n.args {
			if arg == "--user=root" {
				n.args[j] = "--user=mysql"
			}
		}
		n.args = append(n.args, "--server-id="+fmt.Sprint(i+1), "--binlog-format=ROW", "--innodb-autoinc-lock-mode=2", "--innodb-flush-log-at-trx-commit=2",
			"--wsrep-on=ON", "--wsrep-provider=/usr/lib/galera/libgalera_smm.so", "--wsrep-cluster-name=faults", "--wsrep-node-address="+host,
			"--wsrep-sst-method=rsync", "--wsrep-slave-threads=2",
			"--wsrep-provider-options=gmcast.listen_addr=tcp://"+host+":4567;ist.recv_addr="+host+":4568;gcache.size=64M")
		c.nodes[i] = n
	}
	return "gcomm://" + strings.Join(addresses, ","), nil
}

// newClusterAddress makes the node that starts with it found a cluster.
const newClusterAddress = "gcomm://"

// fillFirst creates the database on the first node, and stops the node.
func (c *cluster) fillFirst(template, hash string) error {
	first := c.nodes[0]
	if err := c.copyData(template, first); err != nil {
		return err
	}
	if err := first.startNode(newClusterAddress); err != nil {
		return err
	}
	if err := first.prepare(hash); err != nil {
		return err
	}
	first.stop()
	return nil
}

// join copies the first node's data to the others, so that no state transfer
// is needed, and starts all nodes as one cluster.
func (c *cluster) join(peers string) error {
	first := c.nodes[0]
	for _, n := range c.nodes[1:] {
		if err := c.copyData(first.dir, n); err != nil {
			return err
		}
		os.Remove(n.dir + "/data/galera.cache")
		os.Remove(n.dir + "/data/gvwstate.dat")
	}
	if err := allowBootstrap(first.dir + "/data/grastate.dat"); err != nil {
		return err
	}
	for i, n := range c.nodes {
		address := peers
		if i == 0 {
			address = newClusterAddress
		}
		if err := n.startNode(address); err != nil {
			return err
		}
	}
	for _, n := range c.nodes { // for later starts
		n.args = append(n.args, "--wsrep-cluster-address="+peers)
	}
	return nil
}

// copyData copies the data of a directory to a node.
func (c *cluster) copyData(from string, n *server) error {
	if err := copyTree(from+"/data", n.dir+"/data"); err != nil {
		return err
	}
	return command("chown", "-R", "mysql", n.dir)
}

// allowBootstrap marks a node's saved state as safe to found a cluster with.
func allowBootstrap(grastate string) error {
	state, err := os.ReadFile(grastate)
	if err != nil {
		return err
	}
	state = bytes.Replace(state, []byte("safe_to_bootstrap: 0"), []byte("safe_to_bootstrap: 1"), 1)
	return os.WriteFile(grastate, state, 0o660)
}

// startNode starts a node with a cluster address for this start only, and waits
// until the node is synced.
func (s *server) startNode(address string) error {
	args := s.args
	s.args = append(slices.Clone(args), "--wsrep-cluster-address="+address)
	err := s.launch()
	s.args = args
	if err != nil {
		return err
	}
	return s.awaitSynced()
}

// startApps starts an app server on each of HAProxy's ports, and waits until
// HAProxy forwards the last one's connections.
func (c *cluster) startApps(ports []string, log *slog.Logger) (err error) {
	for _, port := range ports {
		a, err := newApp("app:app@tcp(127.0.0.1:"+port+")/app", "", 10*time.Second, log)
		if err != nil {
			return err
		}
		c.apps = append(c.apps, a)
	}
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		if _, err = c.apps[2].auth.Migrate(context.Background()); err == nil || time.Now().After(deadline) {
			return err
		}
	}
}

// awaitAllSynced waits until all nodes that run form one cluster.
func (c *cluster) awaitAllSynced() error {
	var running []*server
	for _, n := range c.nodes {
		select {
		case <-n.exited:
		default:
			running = append(running, n)
		}
	}
	for _, n := range running {
		if err := n.awaitSynced(); err != nil {
			return err
		}
		if err := n.await(fmt.Sprintf("SELECT VARIABLE_VALUE = %d FROM information_schema.GLOBAL_STATUS WHERE VARIABLE_NAME = 'wsrep_cluster_size'", len(running))); err != nil {
			return err
		}
	}
	return nil
}

// awaitSynced waits until a node is synced with its cluster.
func (s *server) awaitSynced() error {
	return s.await("SELECT VARIABLE_VALUE = 'Synced' FROM information_schema.GLOBAL_STATUS WHERE VARIABLE_NAME = 'wsrep_local_state_comment'")
}

// balance starts HAProxy with a port for each node. While the node is not
// ready, its port forwards to another one. The agent of a node answers one
// health check for all three ports.
func (c *cluster) balance() (ports []string, err error) {
	config := "defaults\n  mode tcp\n  timeout connect 1s\n  timeout client 1h\n  timeout server 1h\n  timeout check 2s\n" +
		"backend checks\n  option httpchk GET /\n"
	for i, n := range c.nodes {
		if c.agents[i], err = newHealthAgent(n.address()); err != nil {
			return nil, err
		}
		config += fmt.Sprintf("  server node%d %s check addr 127.0.0.1 port %s inter 300ms fall 2 rise 2\n", i+1, n.address(), c.agents[i].port)
	}
	for i := range 3 {
		port := testdb.FreePort("127.0.0.1")
		ports = append(ports, port)
		config += fmt.Sprintf("listen app%d\n  bind 127.0.0.1:%s\n", i+1, port)
		for j, n := range c.nodes {
			backup := " backup"
			if i == j {
				backup = ""
			}
			config += fmt.Sprintf("  server node%[1]d %[2]s track checks/node%[1]d on-marked-down shutdown-sessions%[3]s\n", j+1, n.address(), backup)
		}
	}
	file := filepath.Join(c.dir, "haproxy.cfg")
	if err := os.WriteFile(file, []byte(config), 0o644); err != nil {
		return nil, err
	}
	if err := command("haproxy", "-c", "-q", "-f", file); err != nil {
		return nil, err
	}
	c.haproxy = exec.Command("haproxy", "-db", "-f", file)
	c.haproxy.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return ports, c.haproxy.Start()
}

func (c *cluster) close() {
	for _, a := range c.apps {
		a.close()
	}
	if c.haproxy != nil {
		c.haproxy.Process.Kill()
		c.haproxy.Wait()
	}
	for _, agent := range c.agents {
		if agent != nil {
			agent.close()
		}
	}
	for _, n := range c.nodes {
		if n != nil && n.cmd != nil {
			n.kill()
		}
	}
	os.RemoveAll(c.dir)
}

// isolate cuts the network between a node and the others. The node's app still
// reaches it.
func (c *cluster) isolate(n *server) error {
	for _, other := range c.nodes {
		if other == n {
			continue
		}
		for _, way := range [][2]string{{n.host, other.host}, {other.host, n.host}} {
			if err := command("iptables", "-A", "INPUT", "-s", way[0], "-d", way[1], "-j", "DROP"); err != nil {
				return err
			}
		}
	}
	return nil
}

// lag makes a node apply the other nodes' writes up to 100 ms late, repeatedly.
func (c *cluster) lag(n *server) (end func() error, err error) {
	return repeatedly(func(ctx context.Context) error {
		conn, err := n.root.Conn(ctx)
		if err != nil {
			return nil
		}
		defer conn.Close()
		conn.ExecContext(context.Background(), "FLUSH TABLES WITH READ LOCK")
		pause(ctx, 100*time.Millisecond)
		conn.ExecContext(context.Background(), "UNLOCK TABLES")
		pause(ctx, 100*time.Millisecond)
		return nil
	})
}

// bounces performs n logins, each followed by a check on another node. It
// returns how many checks did not find the session, how many requests failed
// and how long the slowest check took.
func (c *cluster) bounces(n int) (bounced, failed int, slowest time.Duration) {
	l := newLoad("bounces", c.apps...)
	var mu sync.Mutex
	var running sync.WaitGroup
	for i := range 8 {
		running.Go(func() {
			client := &client{load: l, email: fmt.Sprintf("user%d@example.com", i)}
			for k := i; k < n; k += 8 {
				status, _, cookie := client.request(c.apps[k%3], "POST", "/login?email="+client.email, "")
				started := time.Now()
				other := 0
				if status == http.StatusOK {
					other, _, _ = client.request(c.apps[(k+1+k/3%2)%3], "GET", "/", cookie)
				}
				took := time.Since(started)
				mu.Lock()
				if status == http.StatusOK && other == http.StatusUnauthorized {
					bounced++
				}
				if status != http.StatusOK || other == http.StatusServiceUnavailable {
					failed++
				}
				slowest = max(slowest, took)
				mu.Unlock()
			}
		})
	}
	running.Wait()
	return bounced, failed, slowest
}

// A clusterFault is a fault injected into a cluster.
type clusterFault struct {
	name, description string
	inject            func(*cluster) (end func() error, err error)
	long              int  // times the usual duration
	quick             bool // part of the subset for CI
}

// clusterFaults are injected into one cluster, one after the other. The node
// that the last but one kills is not started again.
var clusterFaults = []clusterFault{
	{name: "Galera", description: "three nodes, each with an app; for comparison", quick: true, inject: func(*cluster) (func() error, error) { return func() error { return nil }, nil }},
	{name: "Galera, lag", quick: true, description: "two nodes apply writes up to 100 ms late", inject: func(c *cluster) (func() error, error) {
		one, _ := c.lag(c.nodes[1])
		two, _ := c.lag(c.nodes[2])
		return func() error { one(); return two() }, nil
	}},
	{name: "Galera, rolling restart", description: "the nodes are restarted one after the other", inject: func(c *cluster) (func() error, error) {
		for _, n := range c.nodes {
			n.stop()
			if err := n.launch(); err != nil {
				return nil, err
			}
			if err := n.awaitSynced(); err != nil {
				return nil, err
			}
			time.Sleep(2 * time.Second)
		}
		return func() error { return nil }, nil
	}},
	{long: 2, name: "Galera, node cut off", description: "one node is cut off from the others, and reconnected at the end", inject: func(c *cluster) (func() error, error) {
		return func() error { return command("iptables", "-F", "INPUT") }, c.isolate(c.nodes[1])
	}},
	{long: 2, name: "Galera, node killed", description: "SIGKILL of one node", inject: func(c *cluster) (func() error, error) {
		c.nodes[2].kill()
		return func() error { return nil }, nil
	}},
	{long: 2, name: "Galera, killed and cut off", description: "one node is dead and the other two are cut off from each other: neither has a majority until they are reconnected", inject: func(c *cluster) (func() error, error) {
		return func() error { return command("iptables", "-F", "INPUT") }, c.isolate(c.nodes[1])
	}},
}

// runCluster injects the faults of a cluster. It must run in its own network
// namespace.
func runCluster(template, hash string, selected *regexp.Regexp, quick bool, duration time.Duration, log *slog.Logger, show func(result)) error {
	c, err := newCluster(template, hash, log)
	if err != nil {
		return err
	}
	defer c.close()
	logins := 10000
	if quick {
		logins = 1000
	}
	for _, f := range clusterFaults {
		if !selected.MatchString(f.name) || quick && !f.quick {
			continue
		}
		if err := c.awaitAllSynced(); err != nil {
			return fmt.Errorf("before %s: %w", f.name, err)
		}
		c.load = newLoad(f.name, c.apps...)
		c.load.grace = time.Second
		c.load.age = c.nodes[0].age
		recovery, err := c.load.runUnder(func() (func() error, error) { return f.inject(c) }, duration*time.Duration(max(1, f.long)))
		if err != nil {
			return fmt.Errorf("%s: %w", f.name, err)
		}
		r := c.load.result(f.name, f.description, recovery)
		if strings.HasSuffix(f.name, "Galera") || strings.HasSuffix(f.name, "lag") {
			end, err := f.inject(c)
			if err != nil {
				return err
			}
			bounced, failed, slowest := c.bounces(logins)
			end()
			r.notes = append(r.notes, fmt.Sprintf("%d logins, each followed by a check on another node: %d bounced, %d failed, slowest check %.0f ms", logins, bounced, failed, float64(slowest)/1e6))
			r.lostLogins += int64(bounced)
			r.unavailable += int64(failed)
		}
		show(r)
	}
	return nil
}
