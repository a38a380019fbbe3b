// peer: benchmarks of containerd's snapshot metadata store (bbolt) and overlay
// snapshotter, one JSON line per figure:
//
//	{"name":..., "n":samples, "median_ns":..., "p99_ns":..., "min_ns":..., "mean_ns":...}
//
//	peer -root DIR [-only REGEXP] [-list] [-budget 1s] [-quick] [-keep]
//	peer -root DIR -socket SOCK   the grpc/ figures against any running proxy snapshotter
//	peer -root DIR -cmd TEMPLATE  the same; starts the server ({root}, {socket}), a fresh
//	                              root for each figure group, stops it by SIGTERM
//
// DIR must be on a real disk: tmpfs/ramfs/overlay are refused (-any-fs to force).
// Every op is timed by itself (monotonic clock). Number of samples: at least min, then
// until the time budget is spent, at most max.
//
// Data set "N snapshots" (fill): for i in 0..N-1, key i = "default/<i>/sha256:<64 hex of i>",
// chains of 10: parent = key i-1 unless i%10==0; committed unless i%10==9 (active, the
// chain's top); labels containerd.io/snapshot.ref=sha256:<hex>, l=<i%100>;
// usage of the committed ones: size 4096*(i%1000), inodes i%50.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"sort"
	"strings"
	"sync"
	"syscall"
	"time"

	snapshotsapi "github.com/containerd/containerd/api/services/snapshots/v1"
	"github.com/containerd/containerd/namespaces"
	"github.com/containerd/containerd/pkg/dialer"
	"github.com/containerd/containerd/snapshots"
	"github.com/containerd/containerd/snapshots/overlay"
	"github.com/containerd/containerd/snapshots/proxy"
	"github.com/containerd/containerd/snapshots/storage"
	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
)

var (
	root   = flag.String("root", "", "scratch directory on a real disk")
	only   = flag.String("only", "", "regexp on figure names")
	list   = flag.Bool("list", false, "list the figures' names and exit")
	budget = flag.Duration("budget", time.Second, "time budget of one figure")
	quick  = flag.Bool("quick", false, "skip the figures with >= 50k snapshots")
	keep   = flag.Bool("keep", false, "leave what was made: deletions slow down ext4's mkdir for a while")
	anyfs  = flag.Bool("any-fs", false, "allow tmpfs and the like")
	socket = flag.String("socket", "", "benchmark this running proxy snapshotter (grpc/ figures only)")
	cmdT   = flag.String("cmd", "", "benchmark a proxy snapshotter started with this template (grpc/ figures only)")

	onlyRe *regexp.Regexp
	ctx    = namespaces.WithNamespace(context.Background(), "default")
)

func must(err error) {
	if err != nil {
		panic(err)
	}
}

func want(name string) bool {
	if *quick && (strings.HasSuffix(name, "_50k") || strings.HasSuffix(name, "_100k")) {
		return false
	}
	if onlyRe != nil && !onlyRe.MatchString(name) {
		return false
	}
	if *list {
		fmt.Println(name)
		return false
	}
	return true
}

// wantAny tells whether any of the names is to run (to skip an unneeded fill).
func wantAny(names ...string) bool {
	r := false
	for _, n := range names {
		r = want(n) || r
	}
	return r
}

func report(name string, s []time.Duration, extra map[string]interface{}) {
	if len(s) == 0 || !want(name) {
		return // a group is measured together; only the wanted figures are printed
	}
	sort.Slice(s, func(i, j int) bool { return s[i] < s[j] })
	var sum time.Duration
	for _, d := range s {
		sum += d
	}
	p99 := (len(s)*99+99)/100 - 1 // nearest rank
	med := (s[(len(s)-1)/2] + s[len(s)/2]) / 2
	m := map[string]interface{}{"name": name, "n": len(s), "median_ns": med.Nanoseconds(), "p99_ns": s[p99].Nanoseconds(),
		"min_ns": s[0].Nanoseconds(), "mean_ns": sum.Nanoseconds() / int64(len(s))}
	for k, v := range extra {
		m[k] = v
	}
	b, _ := json.Marshal(m)
	fmt.Println(string(b))
}

// samples calls op, which returns the time of the part that counts.
func samples(min, max int, op func(i int) time.Duration) []time.Duration {
	var out []time.Duration
	t0 := time.Now()
	for i := 0; i < max && (i < min || time.Since(t0) < *budget); i++ {
		out = append(out, op(i))
	}
	return out
}

func timed(f func()) time.Duration { t := time.Now(); f(); return time.Since(t) }

// tmp makes an empty directory; the syncs keep an earlier figure's dirty inodes out of the
// journal commits that this one waits for.
func tmp(name string) string {
	syscall.Sync()
	d := filepath.Join(*root, "peer-"+strings.NewReplacer("/", "_").Replace(name))
	must(os.RemoveAll(d))
	must(os.MkdirAll(d, 0700))
	return d
}

// drop removes a directory of tmp's, unless all is to be kept.
func drop(d string) {
	if !*keep {
		os.RemoveAll(d)
	}
}

func hexkey(i int) string { return fmt.Sprintf("sha256:%064x", i) }
func key(i int) string    { return fmt.Sprintf("default/%d/%s", i, hexkey(i)) }
func labels(i int) snapshots.Opt {
	return snapshots.WithLabels(map[string]string{"containerd.io/snapshot.ref": hexkey(i), "l": fmt.Sprint(i % 100)})
}

// fill puts N snapshots in a metastore, 2000 to a write transaction.
func fill(ms *storage.MetaStore, n int, each func(id string, active bool)) {
	for lo := 0; lo < n; lo += 2000 {
		c, t, err := ms.TransactionContext(ctx, true)
		must(err)
		for i := lo; i < n && i < lo+2000; i++ {
			parent := ""
			if i%10 != 0 {
				parent = key(i - 1)
			}
			var s storage.Snapshot
			if i%10 == 9 {
				s, err = storage.CreateSnapshot(c, snapshots.KindActive, key(i), parent, labels(i))
				must(err)
			} else {
				s, err = storage.CreateSnapshot(c, snapshots.KindActive, "tmp", parent)
				must(err)
				_, err = storage.CommitActive(c, "tmp", key(i), snapshots.Usage{Size: int64(4096 * (i % 1000)), Inodes: int64(i % 50)}, labels(i))
				must(err)
			}
			if each != nil {
				each(s.ID, i%10 == 9)
			}
		}
		must(t.Commit())
	}
}

// chain commits depth snapshots "c1".."c<depth>" and an active "a<depth>" on top.
func chain(c context.Context, depth int) {
	parent := ""
	for i := 1; i <= depth; i++ {
		_, err := storage.CreateSnapshot(c, snapshots.KindActive, "tmp", parent)
		must(err)
		parent = fmt.Sprintf("d%d-c%d", depth, i)
		_, err = storage.CommitActive(c, "tmp", parent, snapshots.Usage{})
		must(err)
	}
	_, err := storage.CreateSnapshot(c, snapshots.KindActive, fmt.Sprintf("a%d", depth), parent)
	must(err)
}

func newMS(name string) (*storage.MetaStore, func()) {
	d := tmp(name)
	ms, err := storage.NewMetaStore(filepath.Join(d, "metadata.db"))
	must(err)
	return ms, func() { ms.Close(); drop(d) }
}

// inWrite runs a figure inside one write transaction, as metastore_bench_test.go's makeBench does.
func inWrite(name string, f func(c context.Context) []time.Duration) {
	if !want(name) {
		return
	}
	ms, done := newMS(name)
	defer done()
	c, t, err := ms.TransactionContext(ctx, true)
	must(err)
	s := f(c)
	must(t.Commit())
	report(name, s, nil)
}

func baseActive(c context.Context) {
	_, err := storage.CreateSnapshot(c, snapshots.KindActive, "bottom", "")
	must(err)
	_, err = storage.CommitActive(c, "bottom", "base", snapshots.Usage{})
	must(err)
	_, err = storage.CreateSnapshot(c, snapshots.KindActive, "active", "base")
	must(err)
}

const big = 200000

func metaFigures() {
	// ---- equivalents of snapshots/storage/metastore_bench_test.go
	inWrite("meta/stat_active", func(c context.Context) []time.Duration {
		baseActive(c)
		return samples(1000, big, func(int) time.Duration {
			return timed(func() { _, _, _, err := storage.GetInfo(c, "active"); must(err) })
		})
	})
	inWrite("meta/stat_committed", func(c context.Context) []time.Duration {
		baseActive(c)
		_, err := storage.CommitActive(c, "active", "committed", snapshots.Usage{})
		must(err)
		return samples(1000, big, func(int) time.Duration {
			return timed(func() { _, _, _, err := storage.GetInfo(c, "committed"); must(err) })
		})
	})
	inWrite("meta/create_active", func(c context.Context) []time.Duration {
		return samples(1000, big, func(int) time.Duration {
			d := timed(func() { _, err := storage.CreateSnapshot(c, snapshots.KindActive, "active", ""); must(err) })
			_, _, err := storage.Remove(c, "active")
			must(err)
			return d
		})
	})
	inWrite("meta/remove", func(c context.Context) []time.Duration {
		return samples(1000, big, func(int) time.Duration {
			_, err := storage.CreateSnapshot(c, snapshots.KindActive, "active", "")
			must(err)
			return timed(func() { _, _, err := storage.Remove(c, "active"); must(err) })
		})
	})
	inWrite("meta/commit", func(c context.Context) []time.Duration {
		return samples(1000, big, func(int) time.Duration {
			_, err := storage.CreateSnapshot(c, snapshots.KindActive, "active", "")
			must(err)
			d := timed(func() { _, err := storage.CommitActive(c, "active", "committed", snapshots.Usage{}); must(err) })
			_, _, err = storage.Remove(c, "committed")
			must(err)
			return d
		})
	})
	inWrite("meta/get_active", func(c context.Context) []time.Duration {
		chain(c, 10)
		return samples(1000, big, func(int) time.Duration {
			return timed(func() { _, err := storage.GetSnapshot(c, "a10"); must(err) })
		})
	})
	if n := "meta/write_tx"; want(n) {
		ms, done := newMS(n)
		report(n, samples(200, 5000, func(int) time.Duration {
			return timed(func() {
				_, t, err := ms.TransactionContext(ctx, true)
				must(err)
				must(t.Commit())
			})
		}), nil)
		done()
	}
	if n := "meta/read_tx"; want(n) {
		ms, done := newMS(n)
		report(n, samples(1000, big, func(int) time.Duration {
			return timed(func() {
				_, t, err := ms.TransactionContext(ctx, false)
				must(err)
				must(t.Rollback())
			})
		}), nil)
		done()
	}

	// ---- durable: each op in its own committed (fdatasync'ed) write transaction
	for _, at := range []struct {
		suffix string
		n      int
	}{{"", 0}, {"_10k", 10000}, {"_100k", 100000}} {
		names := []string{"meta/durable_create" + at.suffix, "meta/durable_commit" + at.suffix, "meta/durable_remove" + at.suffix}
		if !wantAny(names...) {
			continue
		}
		ms, done := newMS(names[0])
		fill(ms, at.n, nil)
		parent := ""
		if at.n > 0 {
			parent = key(8)
		}
		tx := func(f func(c context.Context) error) time.Duration {
			return timed(func() {
				c, t, err := ms.TransactionContext(ctx, true)
				must(err)
				must(f(c))
				must(t.Commit())
			})
		}
		var cr, co, rm []time.Duration
		t0 := time.Now()
		for i := 0; i < 2000 && (i < 200 || time.Since(t0) < 3**budget); i++ {
			k := fmt.Sprintf("default/%d/bench-active", 1000000+i)
			name := fmt.Sprintf("default/%d/bench-committed", 1000000+i)
			cr = append(cr, tx(func(c context.Context) error {
				_, err := storage.CreateSnapshot(c, snapshots.KindActive, k, parent, labels(i))
				return err
			}))
			co = append(co, tx(func(c context.Context) error {
				_, err := storage.CommitActive(c, k, name, snapshots.Usage{Size: 4096, Inodes: 1}, labels(i))
				return err
			}))
			rm = append(rm, tx(func(c context.Context) error { _, _, err := storage.Remove(c, name); return err }))
		}
		for i, s := range [][]time.Duration{cr, co, rm} {
			report(names[i], s, map[string]interface{}{"existing": at.n})
		}
		done()
	}

	// ---- walks: a read transaction around each walk, as the overlay snapshotter does
	for _, at := range []struct {
		suffix string
		n      int
	}{{"_100", 100}, {"_10k", 10000}, {"_100k", 100000}} {
		fl := []struct {
			name string
			fs   []string
			hits int
		}{
			{"all", nil, at.n},
			{"kind", []string{"kind==active"}, at.n / 10},
			{"name", []string{"name==" + strconvQuote(key(at.n/2))}, 1},
			{"parent", []string{"parent==" + strconvQuote(key(at.n/2))}, 1},
			{"label", []string{"labels.l==7"}, at.n / 100},
			{"ref", []string{`labels."containerd.io/snapshot.ref"==` + strconvQuote(hexkey(at.n/2+5)) + `,parent==` + strconvQuote(key(at.n/2+4))}, 1},
		}
		names := []string{}
		for _, f := range fl {
			names = append(names, "meta/walk_"+f.name+at.suffix)
		}
		names = append(names, "meta/idmap"+at.suffix, "meta/stat_readtx"+at.suffix)
		if !wantAny(names...) {
			continue
		}
		ms, done := newMS("meta/walk" + at.suffix)
		fill(ms, at.n, nil)
		var size int64
		if st, err := os.Stat(filepath.Join(*root, "peer-meta_walk"+at.suffix, "metadata.db")); err == nil {
			size = st.Size()
		}
		for i, f := range fl {
			if !want(names[i]) {
				continue
			}
			hits := 0
			report(names[i], samples(11, 1000, func(int) time.Duration {
				hits = 0
				return timed(func() {
					c, t, err := ms.TransactionContext(ctx, false)
					must(err)
					must(storage.WalkInfo(c, func(context.Context, snapshots.Info) error { hits++; return nil }, f.fs...))
					must(t.Rollback())
				})
			}), map[string]interface{}{"existing": at.n, "hits": hits, "db_bytes": size})
			if hits != f.hits {
				log.Fatalf("%s: %d hits, want %d", names[i], hits, f.hits)
			}
		}
		if n := "meta/idmap" + at.suffix; want(n) {
			report(n, samples(11, 1000, func(int) time.Duration {
				return timed(func() {
					c, t, err := ms.TransactionContext(ctx, false)
					must(err)
					_, err = storage.IDMap(c)
					must(err)
					must(t.Rollback())
				})
			}), map[string]interface{}{"existing": at.n})
		}
		if n := "meta/stat_readtx" + at.suffix; want(n) {
			report(n, samples(1000, big, func(i int) time.Duration {
				k := key((i * 7919) % at.n)
				return timed(func() {
					c, t, err := ms.TransactionContext(ctx, false)
					must(err)
					_, _, _, err = storage.GetInfo(c, k)
					must(err)
					must(t.Rollback())
				})
			}), map[string]interface{}{"existing": at.n})
		}
		done()
	}

	// ---- GetSnapshot (resolves the parent chain), a read transaction each
	depths := []int{1, 10, 100, 500}
	names := []string{}
	for _, d := range depths {
		names = append(names, fmt.Sprintf("meta/get_snapshot_d%d", d))
	}
	if wantAny(names...) {
		ms, done := newMS("meta/get_snapshot")
		for _, d := range depths {
			c, t, err := ms.TransactionContext(ctx, true)
			must(err)
			chain(c, d)
			must(t.Commit())
		}
		for i, d := range depths {
			if !want(names[i]) {
				continue
			}
			k := fmt.Sprintf("a%d", d)
			report(names[i], samples(500, big, func(int) time.Duration {
				return timed(func() {
					c, t, err := ms.TransactionContext(ctx, false)
					must(err)
					s, err := storage.GetSnapshot(c, k)
					must(err)
					if len(s.ParentIDs) != d {
						panic("depth")
					}
					must(t.Rollback())
				})
			}), map[string]interface{}{"depth": d})
		}
		done()
	}
}

// syncfs makes all that was written to the filesystem of a directory durable: what containerd's
// Commit leaves out.
func syncfs(dir string) {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	must(err)
	must(unix.Syncfs(fd))
	must(unix.Close(fd))
}

func strconvQuote(s string) string { return fmt.Sprintf("%q", s) }

// figures that run against any Snapshotter. reset gives a fresh, empty one;
// populate fills it with the N data set.
type target struct {
	prefix   string
	fresh    func(name string) (sn snapshots.Snapshotter, dir string, done func())
	populate func(sn snapshots.Snapshotter, dir string, n int) snapshots.Snapshotter
	sizes    []int
	least    int // samples, where what is there makes each slow
}

func sfx(n int) string {
	if n >= 1000 {
		return fmt.Sprintf("_%dk", n/1000)
	}
	return fmt.Sprintf("_%d", n)
}

func snapFigures(t target) {
	p := t.prefix
	// chains of 20 empty layers: prepare+commit
	if a, b := p+"/chain_prepare", p+"/chain_commit"; wantAny(a, b) {
		sn, _, done := t.fresh(a)
		var pr, co []time.Duration
		t0 := time.Now()
		for r := 0; r < 100 && (r < 10 || time.Since(t0) < 3**budget); r++ {
			parent := ""
			for i := 0; i < 20; i++ {
				k, name := fmt.Sprintf("r%d-%d-a", r, i), fmt.Sprintf("r%d-%d", r, i)
				pr = append(pr, timed(func() { _, err := sn.Prepare(ctx, k, parent); must(err) }))
				co = append(co, timed(func() { must(sn.Commit(ctx, name, k)) }))
				parent = name
			}
		}
		report(a, pr, nil)
		report(b, co, nil)
		done()
	}
	// 64 prepares at once on one base: wall time of a round / 64
	if a := p + "/prepare_c64"; want(a) {
		sn, _, done := t.fresh(a)
		_, err := sn.Prepare(ctx, "base-a", "")
		must(err)
		must(sn.Commit(ctx, "base", "base-a"))
		report(a, samples(20, 200, func(i int) time.Duration {
			var wg sync.WaitGroup
			d := timed(func() {
				for j := 0; j < 64; j++ {
					wg.Add(1)
					go func(j int) {
						defer wg.Done()
						_, err := sn.Prepare(ctx, fmt.Sprintf("c-%d-%d", i, j), "base")
						must(err)
					}(j)
				}
				wg.Wait()
			})
			return d / 64
		}), map[string]interface{}{"at_once": 64})
		done()
	}
	// prepare+remove etc. with N existing snapshots
	for _, n := range t.sizes {
		s := sfx(n)
		nm := func(x string) string { return p + "/" + x + s }
		if !wantAny(nm("prepare"), nm("view"), nm("remove"), nm("cleanup"), nm("commit"), nm("commit_syncfs"), nm("stat"), nm("walk"), nm("walk_label"), nm("mounts")) {
			continue
		}
		sn, dir, done := t.fresh(nm("n"))
		sn = t.populate(sn, dir, n)
		syscall.Sync()
		ex := map[string]interface{}{"existing": n}
		var pr, rm, vw, co, cs, cl []time.Duration
		t0 := time.Now()
		group := wantAny(nm("prepare"), nm("view"), nm("remove"), nm("commit"), nm("commit_syncfs"))
		for i := 0; group && i < 1000 && (i < t.least || time.Since(t0) < 4**budget); i++ {
			k := fmt.Sprintf("bench-%d", i)
			parent := key(8 + 10*(i%(n/10)))
			pr = append(pr, timed(func() { _, err := sn.Prepare(ctx, k, parent, labels(i)); must(err) }))
			rm = append(rm, timed(func() { must(sn.Remove(ctx, k)) }))
			vw = append(vw, timed(func() { _, err := sn.View(ctx, k, parent, labels(i)); must(err) }))
			must(sn.Remove(ctx, k))
			_, err := sn.Prepare(ctx, k, parent, labels(i))
			must(err)
			co = append(co, timed(func() { must(sn.Commit(ctx, k+"c", k, labels(i))) }))
			must(sn.Remove(ctx, k+"c"))
			if want(nm("commit_syncfs")) {
				_, err = sn.Prepare(ctx, k, parent, labels(i))
				must(err)
				cs = append(cs, timed(func() { syncfs(dir); must(sn.Commit(ctx, k+"c", k, labels(i))) }))
				must(sn.Remove(ctx, k+"c"))
			}
		}
		report(nm("prepare"), pr, ex)
		report(nm("remove"), rm, ex)
		report(nm("view"), vw, ex)
		report(nm("commit"), co, ex)
		report(nm("commit_syncfs"), cs, ex)
		if c, ok := sn.(snapshots.Cleaner); ok && want(nm("cleanup")) {
			must(c.Cleanup(ctx)) // what the loop above left
			cl = samples(5, 50, func(i int) time.Duration {
				_, err := sn.Prepare(ctx, "gone", key(8))
				must(err)
				must(sn.Remove(ctx, "gone"))
				return timed(func() { must(c.Cleanup(ctx)) })
			})
			report(nm("cleanup"), cl, ex)
		}
		if want(nm("stat")) {
			report(nm("stat"), samples(1000, big, func(i int) time.Duration {
				k := key((i * 7919) % n)
				return timed(func() { _, err := sn.Stat(ctx, k); must(err) })
			}), ex)
		}
		if want(nm("mounts")) {
			report(nm("mounts"), samples(1000, big, func(i int) time.Duration {
				k := key(9 + 10*((i*7919)%(n/10)))
				return timed(func() { _, err := sn.Mounts(ctx, k); must(err) })
			}), ex)
		}
		for _, w := range []struct {
			n  string
			fs []string
			h  int
		}{{"walk", nil, n}, {"walk_label", []string{"labels.l==7"}, n / 100}} {
			if want(nm(w.n)) {
				hits := 0
				report(nm(w.n), samples(11, 1000, func(int) time.Duration {
					hits = 0
					return timed(func() {
						must(sn.Walk(ctx, func(context.Context, snapshots.Info) error { hits++; return nil }, w.fs...))
					})
				}), map[string]interface{}{"existing": n, "hits": hits})
				if hits != w.h {
					log.Fatalf("%s: %d hits, want %d", nm(w.n), hits, w.h)
				}
			}
		}
		done()
	}
	// Mounts on a chain of depth d
	depths := []int{1, 10, 100, 500}
	names := []string{}
	for _, d := range depths {
		names = append(names, fmt.Sprintf("%s/mounts_d%d", p, d), fmt.Sprintf("%s/prepare_d%d", p, d))
	}
	if wantAny(names...) {
		sn, _, done := t.fresh(p + "/depth")
		parent, at := "", map[int]string{}
		for i := 1; i <= 500; i++ {
			k := fmt.Sprintf("c%d-a", i)
			_, err := sn.Prepare(ctx, k, parent)
			must(err)
			parent = fmt.Sprintf("c%d", i)
			must(sn.Commit(ctx, parent, k))
			at[i] = parent
		}
		for _, d := range depths {
			k := fmt.Sprintf("a%d", d)
			_, err := sn.Prepare(ctx, k, at[d])
			must(err)
			if n := fmt.Sprintf("%s/mounts_d%d", p, d); want(n) {
				report(n, samples(500, big, func(int) time.Duration {
					return timed(func() {
						m, err := sn.Mounts(ctx, k)
						must(err)
						if d > 1 && m[0].Type == "overlay" && strings.Count(strings.Join(m[0].Options, " "), ":") != d-1 {
							panic("depth: " + strings.Join(m[0].Options, " "))
						}
					})
				}), map[string]interface{}{"depth": d})
			}
			if n := fmt.Sprintf("%s/prepare_d%d", p, d); want(n) {
				report(n, samples(100, 500, func(int) time.Duration {
					x := timed(func() { _, err := sn.Prepare(ctx, "pd", at[d]); must(err) })
					must(sn.Remove(ctx, "pd"))
					return x
				}), map[string]interface{}{"depth": d})
			}
		}
		done()
	}
	// 1000 small files in one active snapshot: Usage, Commit, and Commit after a syncfs every other time
	if a, b, c := p+"/usage_1000files", p+"/commit_1000files", p+"/commit_1000files_syncfs"; wantAny(a, b, c) {
		sn, dir, done := t.fresh(a)
		var us, co, cs []time.Duration
		for r := 0; r < 20; r++ {
			k := fmt.Sprintf("u%d", r)
			m, err := sn.Prepare(ctx, k, "")
			must(err)
			for i := 0; i < 1000; i++ {
				d := filepath.Join(m[0].Source, fmt.Sprintf("d%d", i%20))
				must(os.MkdirAll(d, 0755))
				must(os.WriteFile(filepath.Join(d, fmt.Sprint(i)), []byte("x"), 0644))
			}
			for j := 0; j < 5; j++ {
				us = append(us, timed(func() {
					u, err := sn.Usage(ctx, k)
					must(err)
					if u.Inodes != 1021 {
						log.Fatalf("usage: %+v, want 1021 inodes", u)
					}
				}))
			}
			if r%2 == 0 {
				co = append(co, timed(func() { must(sn.Commit(ctx, k+"c", k)) }))
			} else {
				cs = append(cs, timed(func() { syncfs(dir); must(sn.Commit(ctx, k+"c", k)) }))
			}
		}
		report(a, us, nil)
		report(b, co, nil)
		report(c, cs, nil)
		done()
	}
}

func overlayTarget(prefix string, least int, opts ...overlay.Opt) target {
	open := func(dir string) snapshots.Snapshotter {
		sn, err := overlay.NewSnapshotter(dir, opts...)
		must(err)
		return sn
	}
	return target{
		prefix: prefix,
		fresh: func(name string) (snapshots.Snapshotter, string, func()) {
			d := tmp(name)
			sn := open(d)
			return sn, d, func() { sn.Close(); drop(d) }
		},
		// straight into metadata.db, 2000 to a transaction, plus the directories: same state
		// on disk as N Prepare/Commit calls, without N*3 fdatasyncs
		populate: func(sn snapshots.Snapshotter, dir string, n int) snapshots.Snapshotter {
			must(sn.Close())
			ms, err := storage.NewMetaStore(filepath.Join(dir, "metadata.db"))
			must(err)
			fill(ms, n, func(id string, active bool) {
				d := filepath.Join(dir, "snapshots", id)
				must(os.Mkdir(d, 0700))
				must(os.Mkdir(filepath.Join(d, "fs"), 0755))
				must(os.Mkdir(filepath.Join(d, "work"), 0711))
			})
			must(ms.Close())
			return open(dir)
		},
		sizes: []int{100, 1000, 10000, 50000, 100000},
		least: least,
	}
}

// connParams as in containerd's services/server.
var connParams = func() grpc.ConnectParams {
	b := backoff.DefaultConfig
	b.MaxDelay = 3 * time.Second
	return grpc.ConnectParams{Backoff: b}
}()

func dial(sock string) (snapshots.Snapshotter, io.Closer) {
	conn, err := grpc.Dial(dialer.DialAddress(sock), grpc.WithInsecure(), // as containerd dials a proxy plugin
		grpc.WithContextDialer(dialer.ContextDialer), grpc.WithConnectParams(connParams), grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(16<<20), grpc.MaxCallSendMsgSize(16<<20)))
	must(err)
	return proxy.NewSnapshotter(snapshotsapi.NewSnapshotsClient(conn), "bed"), conn
}

// grpcTarget: any server. Filled through the API, so only to 10k.
func grpcTarget() target {
	seq := 0
	return target{
		prefix: "grpc",
		fresh: func(name string) (snapshots.Snapshotter, string, func()) {
			if *socket != "" {
				sn, c := dial(*socket)
				return sn, "", func() { clear(sn); c.Close() }
			}
			seq++
			d := tmp(name)
			sock := filepath.Join(*root, fmt.Sprintf("gb%d-%d.sock", os.Getpid(), seq))
			os.Remove(sock)
			cmd := exec.Command("sh", "-c", "exec "+strings.NewReplacer("{root}", d, "{socket}", sock).Replace(*cmdT))
			cmd.Stderr = os.Stderr
			must(cmd.Start())
			ok := false
			for i := 0; i < 400 && !ok; i++ {
				if c, err := net.Dial("unix", sock); err == nil {
					c.Close()
					ok = true
				} else {
					time.Sleep(50 * time.Millisecond)
				}
			}
			stop := func() {
				cmd.Process.Signal(syscall.SIGTERM)
				w := make(chan struct{})
				go func() { cmd.Wait(); close(w) }()
				select {
				case <-w:
				case <-time.After(10 * time.Second):
					log.Printf("server %d ignored SIGTERM, killed", cmd.Process.Pid)
					cmd.Process.Kill()
					<-w
				}
				os.Remove(sock)
				drop(d)
			}
			if !ok {
				stop()
				log.Fatal("no socket after 20 s")
			}
			sn, c := dial(sock)
			return sn, d, func() { c.Close(); stop() }
		},
		populate: func(sn snapshots.Snapshotter, _ string, n int) snapshots.Snapshotter {
			t0 := time.Now()
			for i := 0; i < n; i++ {
				parent := ""
				if i%10 != 0 {
					parent = key(i - 1)
				}
				if i%10 == 9 {
					_, err := sn.Prepare(ctx, key(i), parent, labels(i))
					must(err)
				} else {
					_, err := sn.Prepare(ctx, "tmp", parent)
					must(err)
					must(sn.Commit(ctx, key(i), "tmp", labels(i)))
				}
				if i%100 == 0 && time.Since(t0) > 5*time.Minute {
					log.Fatalf("populate: only %d of %d snapshots after 5 min", i, n)
				}
			}
			return sn
		},
		sizes: []int{100, 1000, 10000},
		least: 100,
	}
}

// clear removes every snapshot of a -socket server (children first).
func clear(sn snapshots.Snapshotter) {
	for r := 0; r < 2000; r++ {
		kids, all := map[string]bool{}, []string{}
		must(sn.Walk(ctx, func(_ context.Context, i snapshots.Info) error {
			all = append(all, i.Name)
			kids[i.Parent] = true
			return nil
		}))
		if len(all) == 0 {
			break
		}
		for _, k := range all {
			if !kids[k] {
				must(sn.Remove(ctx, k))
			}
		}
	}
	if c, ok := sn.(snapshots.Cleaner); ok {
		c.Cleanup(ctx)
	}
}

func main() {
	flag.Parse()
	logrus.SetLevel(logrus.ErrorLevel)
	if *root == "" {
		flag.Usage()
		os.Exit(2)
	}
	if *only != "" {
		onlyRe = regexp.MustCompile(*only)
	}
	must(os.MkdirAll(*root, 0700))
	var st syscall.Statfs_t
	must(syscall.Statfs(*root, &st))
	switch uint32(st.Type) {
	case 0x01021994, 0x858458f6, 0x794c7630:
		if !*anyfs {
			log.Fatalf("%s is on tmpfs/ramfs/overlay (type %#x), not a real disk", *root, st.Type)
		}
	}
	if *socket != "" || *cmdT != "" {
		snapFigures(grpcTarget())
		return
	}
	metaFigures()
	snapFigures(overlayTarget("overlay", 100, overlay.AsynchronousRemove)) // as containerd's plugin runs it
	snapFigures(overlayTarget("overlaysync", 15))                          // removal inside Remove
}
