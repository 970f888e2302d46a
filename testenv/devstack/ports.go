package main

import (
	"fmt"
	"io"
	"net"
	"strconv"
)

// ports are the three published ports; also the content of ports.json.
type ports struct {
	Temporal int `json:"temporal"`
	UI       int `json:"ui"`
	S3       int `json:"s3"`
}

func loopback(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

// choosePorts settles each published port: a port named on the command line, else the one this directory used last,
// else the default; and if that is taken any free one, with a notice.
func choosePorts(o options, last ports, notices io.Writer) (ports, error) {
	chosen := o.ports
	taken := map[int]bool{} // one number must not serve two of us
	for _, c := range []struct {
		flag, name string
		port       *int
		last       int
		skip       bool
	}{
		{flag: "port", name: "Temporal", port: &chosen.Temporal, last: last.Temporal},
		{flag: "ui-port", name: "Temporal Web UI", port: &chosen.UI, last: last.UI, skip: o.headless},
		{flag: "s3-port", name: "S3", port: &chosen.S3, last: last.S3},
	} {
		if c.skip {
			*c.port = 0
			continue
		}
		want := *c.port
		if c.last != 0 && (want == 0 || !o.fixed[c.flag]) {
			want = c.last
		}
		if want != 0 && !taken[want] && isFree(want) {
			*c.port, taken[want] = want, true
			continue
		}
		port, err := freePort()
		if err != nil {
			return ports{}, fmt.Errorf("find a port for %s: %w", c.name, err)
		}
		if want != 0 {
			fmt.Fprintf(notices, "devstack: port %d is taken, %s uses %d instead\n", want, c.name, port)
		}
		*c.port, taken[port] = port, true
	}
	return chosen, nil
}

func isFree(port int) bool {
	l, err := net.Listen("tcp", loopback(port))
	if err != nil {
		return false
	}
	l.Close()
	return true
}

// freePort finds a port that nobody else is given before our server binds it. The servers inside take a number, not
// a listener; a connection closed by its server stays in TIME_WAIT, which keeps the kernel from handing the number to
// another ephemeral bind or connection for a minute but does not hinder an explicit bind.
func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	client, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		return 0, err
	}
	defer client.Close()
	server, err := l.Accept()
	if err != nil {
		return 0, err
	}
	if err := server.Close(); err != nil {
		return 0, err
	}
	return l.Addr().(*net.TCPAddr).Port, nil
}
