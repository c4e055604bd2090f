// Godoc writes the documentation of a Go package as a page of Markdown.
package main

import (
	"fmt"
	"go/ast"
	"go/build"
	"go/doc"
	"go/doc/comment"
	"go/format"
	"go/parser"
	"go/token"
	"io"
	"log"
	"os"
	"strings"
)

func main() {
	if len(os.Args) != 3 {
		log.Fatal("usage: godoc <import path> <folder>")
	}
	if err := write(os.Stdout, os.Args[1], os.Args[2]); err != nil {
		log.Fatal(err)
	}
}

func write(w io.Writer, importPath, folder string) error {
	found, err := build.ImportDir(folder, 0)
	if err != nil {
		return fmt.Errorf("listing the package's files: %w", err)
	}
	fset := token.NewFileSet()
	var files []*ast.File
	for _, name := range found.GoFiles {
		file, err := parser.ParseFile(fset, folder+"/"+name, nil, parser.ParseComments)
		if err != nil {
			return fmt.Errorf("reading the package: %w", err)
		}
		files = append(files, file)
	}
	pkg, err := doc.NewFromFiles(fset, files, importPath)
	if err != nil {
		return fmt.Errorf("reading the package's documentation: %w", err)
	}
	p := &page{Writer: w, fset: fset, pkg: pkg}
	p.printf("# %s\n\n```go\nimport %s %q\n```\n\n%s\n", importPath, pkg.Name, importPath, p.text(pkg.Doc))
	p.values(2, pkg.Consts)
	p.values(2, pkg.Vars)
	for _, f := range pkg.Funcs {
		p.function(2, f)
	}
	for _, t := range pkg.Types {
		p.entry(2, t.Name, t.Decl, t.Doc)
		p.values(3, t.Consts)
		p.values(3, t.Vars)
		for _, f := range append(t.Funcs, t.Methods...) {
			p.function(3, f)
		}
	}
	return p.err
}

type page struct {
	io.Writer
	fset *token.FileSet
	pkg  *doc.Package
	err  error
}

func (p *page) printf(text string, args ...any) {
	if _, err := fmt.Fprintf(p, text, args...); err != nil && p.err == nil {
		p.err = err
	}
}

// text is a comment as Markdown; what it links to is on this page, or on pkg.go.dev.
func (p *page) text(source string) string {
	printer := p.pkg.Printer()
	printer.HeadingLevel = 4
	printer.DocLinkURL = func(link *comment.DocLink) string {
		if link.ImportPath != "" {
			return link.DefaultURL("https://pkg.go.dev")
		}
		if link.Recv != "" {
			return "#" + anchor(link.Recv+"."+link.Name)
		}
		return "#" + anchor(link.Name)
	}
	return string(printer.Markdown(p.pkg.Parser().Parse(source)))
}

func (p *page) values(level int, values []*doc.Value) {
	for _, v := range values {
		p.entry(level, strings.Join(v.Names, ", "), v.Decl, v.Doc)
	}
}

func (p *page) function(level int, f *doc.Func) {
	name := f.Name
	if f.Recv != "" {
		name = strings.TrimLeft(f.Recv, "*") + "." + name
	}
	p.entry(level, name, f.Decl, f.Doc)
}

func (p *page) entry(level int, name string, decl ast.Node, text string) {
	if f, ok := decl.(*ast.FuncDecl); ok {
		f.Body = nil
	}
	source := new(strings.Builder)
	if err := format.Node(source, p.fset, decl); err != nil && p.err == nil {
		p.err = err
	}
	p.printf("%s %s {#%s}\n\n```go\n%s\n```\n\n%s\n", strings.Repeat("#", level), name, anchor(name), source, p.text(text))
}

func anchor(name string) string {
	return strings.NewReplacer(", ", "-", ".", "-").Replace(name)
}
