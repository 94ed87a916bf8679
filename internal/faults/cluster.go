package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/candysession/session/internal/testdb"
)

// A cluster is three Galera nodes, on 127.0.0.11 to 127.0.0.13 so that they can be parted, each with an app server that
// uses it by way of HAProxy, and the others when it is down.
type cluster struct {
	dir     string
	nodes   [3]*server
	agents  [3]*healthAgent
	haproxy *exec.Cmd
	apps    []*app
	load    *load
}

const namespace = "session-faults"

// inNamespace runs this program once more, in a network of its own, and returns what it prints.
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

// newCluster starts everything. The first node is filled and stopped, and the others begin with its data, so that nothing
// has to be transferred.
func newCluster(template, hash string, log *slog.Logger) (c *cluster, err error) {
	c = &cluster{}
	if c.dir, err = tempDir(); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			c.close()
		}
	}()
	os.Chmod(c.dir, 0o755)
	var hosts [3]string
	var peers []string
	for i := range 3 {
		hosts[i] = fmt.Sprintf("127.0.0.1%d", i+1)
		peers = append(peers, hosts[i]+":4567")
	}
	for i := range 3 {
		dir := filepath.Join(c.dir, fmt.Sprint(i+1))
		os.Mkdir(dir, 0o755)
		n := newServer(dir, hosts[i])
		// The transfer scripts do not work for root.
		for j, arg := range n.args {
			if arg == "--user=root" {
				n.args[j] = "--user=mysql"
			}
		}
		n.args = append(n.args, "--server-id="+fmt.Sprint(i+1), "--binlog-format=ROW", "--innodb-autoinc-lock-mode=2", "--innodb-flush-log-at-trx-commit=2",
			"--wsrep-on=ON", "--wsrep-provider=/usr/lib/galera/libgalera_smm.so", "--wsrep-cluster-name=faults", "--wsrep-node-address="+hosts[i],
			"--wsrep-sst-method=rsync", "--wsrep-slave-threads=2",
			"--wsrep-provider-options=gmcast.listen_addr=tcp://"+hosts[i]+":4567;ist.recv_addr="+hosts[i]+":4568;gcache.size=64M")
		c.nodes[i] = n
	}
	first := c.nodes[0]
	if err := copyTree(template+"/data", first.dir+"/data"); err != nil {
		return nil, err
	}
	if err := command("chown", "-R", "mysql", c.dir); err != nil {
		return nil, err
	}
	start := func(i int, address string) error {
		n := c.nodes[i]
		args := n.args
		n.args = append(append([]string(nil), args...), "--wsrep-cluster-address="+address)
		err := n.launch()
		n.args = args
		if err == nil {
			err = n.synced()
		}
		return err
	}
	if err := start(0, "gcomm://"); err != nil {
		return nil, err
	}
	if err := first.prepare(hash); err != nil {
		return nil, err
	}
	first.stop()
	for _, n := range c.nodes[1:] {
		if err := copyTree(first.dir+"/data", n.dir+"/data"); err != nil {
			return nil, err
		}
		os.Remove(n.dir + "/data/galera.cache")
		os.Remove(n.dir + "/data/gvwstate.dat")
		if err := command("chown", "-R", "mysql", n.dir); err != nil {
			return nil, err
		}
	}
	if err := command("sed", "-i", "s/safe_to_bootstrap: 0/safe_to_bootstrap: 1/", first.dir+"/data/grastate.dat"); err != nil {
		return nil, err
	}
	all := "gcomm://" + strings.Join(peers, ",")
	if err := start(0, "gcomm://"); err != nil {
		return nil, err
	}
	for i := range 2 {
		if err := start(i+1, all); err != nil {
			return nil, err
		}
	}
	for _, n := range c.nodes { // for the next start
		n.args = append(n.args, "--wsrep-cluster-address="+all)
	}
	ports, err := c.balance()
	if err != nil {
		return nil, err
	}
	for _, port := range ports {
		a, err := newApp("app:app@tcp(127.0.0.1:"+port+")/app", "", 10*time.Second, log)
		if err != nil {
			return nil, err
		}
		c.apps = append(c.apps, a)
	}
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) { // HAProxy has to find the nodes
		if _, err = c.apps[2].auth.Migrate(context.Background()); err == nil || time.Now().After(deadline) {
			break
		}
	}
	return c, err
}

// whole waits until all nodes that live are together.
func (c *cluster) whole() error {
	var living []*server
	for _, n := range c.nodes {
		select {
		case <-n.exited:
		default:
			living = append(living, n)
		}
	}
	for _, n := range living {
		if err := n.synced(); err != nil {
			return err
		}
		if err := n.await(fmt.Sprintf("SELECT VARIABLE_VALUE = %d FROM information_schema.GLOBAL_STATUS WHERE VARIABLE_NAME = 'wsrep_cluster_size'", len(living))); err != nil {
			return err
		}
	}
	return nil
}

// synced waits until a node takes part.
func (s *server) synced() error {
	return s.await("SELECT VARIABLE_VALUE = 'Synced' FROM information_schema.GLOBAL_STATUS WHERE VARIABLE_NAME = 'wsrep_local_state_comment'")
}

// balance starts HAProxy, with a port for each node, which goes to another one while that is not ready. One check of each
// node, by its agent, counts for all three ports.
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

// cut parts a node from the others, which still reaches its own app.
func (c *cluster) cut(n *server) error {
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

// lag has a node apply what the others write a tenth of a second late, again and again.
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

// bounces counts how many of so many logins are unknown to another node right after.
func (c *cluster) bounces(n int) (bounced, failed int, slowest time.Duration) {
	l := newLoad("bounces", c.apps...)
	var mu sync.Mutex
	var running sync.WaitGroup
	for i := range 8 {
		running.Go(func() {
			client := &client{load: l, email: fmt.Sprintf("user%d@example.com", i)}
			for k := i; k < n; k += 8 {
				status, _, cookie := client.do(c.apps[k%3], "POST", "/login?email="+client.email, "")
				begun := time.Now()
				other := 0
				if status == http.StatusOK {
					other, _, _ = client.do(c.apps[(k+1+k/3%2)%3], "GET", "/", cookie)
				}
				took := time.Since(begun)
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

type clusterFault struct {
	name, what string
	begin      func(*cluster) (end func() error, err error)
	long       int  // times the usual duration
	quick      bool // it is in the subset for CI
}

// clusterFaults happen to a cluster one after the other. What the last but one kills stays dead.
var clusterFaults = []clusterFault{
	{name: "Galera", what: "three nodes, each with an app; for comparison", quick: true, begin: func(*cluster) (func() error, error) { return func() error { return nil }, nil }},
	{name: "Galera, lag", quick: true, what: "two nodes apply writes up to 100 ms late", begin: func(c *cluster) (func() error, error) {
		one, _ := c.lag(c.nodes[1])
		two, _ := c.lag(c.nodes[2])
		return func() error { one(); return two() }, nil
	}},
	{name: "Galera, rolling restart", what: "each node in turn is stopped and started", begin: func(c *cluster) (func() error, error) {
		for _, n := range c.nodes {
			n.stop()
			if err := n.launch(); err != nil {
				return nil, err
			}
			if err := n.synced(); err != nil {
				return nil, err
			}
			time.Sleep(2 * time.Second)
		}
		return func() error { return nil }, nil
	}},
	{long: 2, name: "Galera, node cut off", what: "one node is parted from the others, and comes back", begin: func(c *cluster) (func() error, error) {
		return func() error { return command("iptables", "-F", "INPUT") }, c.cut(c.nodes[1])
	}},
	{long: 2, name: "Galera, node killed", what: "SIGKILL of one node", begin: func(c *cluster) (func() error, error) {
		c.nodes[2].kill()
		return func() error { return nil }, nil
	}},
	{long: 2, name: "Galera, killed and cut off", what: "with one node killed, the other two are parted: neither has a majority, until they meet again", begin: func(c *cluster) (func() error, error) {
		return func() error { return command("iptables", "-F", "INPUT") }, c.cut(c.nodes[1])
	}},
}

// runCluster runs the cluster's part. It must be in a namespace.
func runCluster(template, hash string, wanted *regexp.Regexp, quick bool, duration time.Duration, log *slog.Logger, tell func(result)) error {
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
		if !wanted.MatchString(f.name) || quick && !f.quick {
			continue
		}
		if err := c.whole(); err != nil {
			return fmt.Errorf("before %s: %w", f.name, err)
		}
		c.load = newLoad(f.name, c.apps...)
		c.load.grace = time.Second
		c.load.age = c.nodes[0].age
		recovery, err := c.load.suffer(func() (func() error, error) { return f.begin(c) }, duration*time.Duration(max(1, f.long)))
		if err != nil {
			return fmt.Errorf("%s: %w", f.name, err)
		}
		r := c.load.result(f.name, f.what, recovery)
		if strings.HasSuffix(f.name, "Galera") || strings.HasSuffix(f.name, "lag") {
			end, err := f.begin(c)
			if err != nil {
				return err
			}
			bounced, failed, slowest := c.bounces(logins)
			end()
			r.notes = append(r.notes, fmt.Sprintf("%d logins, each followed by a check on another node: %d bounced, %d failed, slowest check %.0f ms", logins, bounced, failed, float64(slowest)/1e6))
			r.lost += int64(bounced)
			r.failed += int64(failed)
		}
		tell(r)
	}
	return nil
}
