// Code into the notebook in front, as a cell of its own; onto the clipboard where there is none.
import { JupyterFrontEnd } from '@jupyterlab/application';
import { INotebookTracker, NotebookActions } from '@jupyterlab/notebook';

/** A function that inserts code, and says what became of it. */
export function codeInserter(
  app: JupyterFrontEnd,
  notebooks: INotebookTracker | null
): (code: string) => Promise<string> {
  return async code => {
    const panel = notebooks?.currentWidget;
    if (!panel || panel.isDisposed) {
      try {
        await navigator.clipboard.writeText(code);
        return 'No notebook is open, so the code was copied: open one and paste it.';
      } catch {
        return `No notebook is open: open one, then insert again. The code:\n${code}`;
      }
    }
    const notebook = panel.content;
    if (notebook.activeCell?.model.sharedModel.getSource().trim()) {
      NotebookActions.insertBelow(notebook);
    }
    if (notebook.activeCell?.model.type !== 'code') {
      NotebookActions.changeCellType(notebook, 'code');
    }
    notebook.activeCell?.model.sharedModel.setSource(code);
    app.shell.activateById(panel.id);
    return `Inserted into ${panel.title.label}: run the cell.`;
  };
}
