// JupyterLab's plugin: panel, viewer tabs, running state, commands and settings. Nothing here waits for the server:
// whatever is wrong with that is told inside the panel.
import { ILabShell, ILayoutRestorer, JupyterFrontEnd, JupyterFrontEndPlugin } from '@jupyterlab/application';
import { ICommandPalette, IThemeManager, MainAreaWidget, WidgetTracker } from '@jupyterlab/apputils';
import { URLExt } from '@jupyterlab/coreutils';
import { ILauncher } from '@jupyterlab/launcher';
import { INotebookTracker } from '@jupyterlab/notebook';
import { ISettingRegistry } from '@jupyterlab/settingregistry';
import { IStatusBar } from '@jupyterlab/statusbar';
import { LabIcon } from '@jupyterlab/ui-components';
import type { CodeVariant } from '../browser';
import { codeInserter } from './insertCode';
import { JupyterTransport } from './jupyterTransport';
import { BrowserWidget } from './panel';
import { StateItem, StateTab } from './state';
import { themeNow, ViewerTab } from './viewerTab';

const PLUGIN_ID = 'caterva2-jupyter:plugin';
const CATEGORY = 'Remote data';

const icon = new LabIcon({
  name: 'caterva2:datasets',
  svgstr:
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 24 24" width="16" fill="none" stroke-width="1.7" stroke-linejoin="round" stroke-linecap="round"><g class="jp-icon3" stroke="#616161"><path d="M12 3l8 4.3v9.4L12 21l-8-4.3V7.3z"/><path d="M4 7.3l8 4.4 8-4.4M12 11.7V21"/><path d="M8 5.2l8 4.3M16 5.2L8 9.5" stroke-width="1"/></g></svg>'
});

const Commands = {
  show: 'caterva2:show',
  open: 'caterva2:open',
  state: 'caterva2:show-state',
  refresh: 'caterva2:refresh'
};

const plugin: JupyterFrontEndPlugin<void> = {
  id: PLUGIN_ID,
  description: 'Remote arrays: a panel that lists them, tabs that show them.',
  autoStart: true,
  // Nothing is required: it also comes up in Notebook 7, and wherever parts are missing.
  optional: [
    ILabShell,
    ILayoutRestorer,
    ICommandPalette,
    ILauncher,
    INotebookTracker,
    ISettingRegistry,
    IStatusBar,
    IThemeManager
  ],
  activate: (
    app: JupyterFrontEnd,
    labShell: ILabShell | null,
    restorer: ILayoutRestorer | null,
    palette: ICommandPalette | null,
    launcher: ILauncher | null,
    notebooks: INotebookTracker | null,
    settings: ISettingRegistry | null,
    statusBar: IStatusBar | null,
    themes: IThemeManager | null
  ) => {
    const server = app.serviceManager.serverSettings;
    const transport = new JupyterTransport(server);
    const viewers = new WidgetTracker<MainAreaWidget<ViewerTab>>({ namespace: 'caterva2-viewer' });
    const states = new WidgetTracker<MainAreaWidget<StateTab>>({ namespace: 'caterva2-state' });
    let opensNewTabs = false;

    const stateItem = new StateItem(transport, () => void app.commands.execute(Commands.state));
    const panel = new BrowserWidget(transport, {
      open: path => void app.commands.execute(Commands.open, { path }),
      insertCode: codeInserter(app, notebooks),
      // Other applications have no place for more pages.
      showState: labShell === null ? undefined : () => void app.commands.execute(Commands.state),
      summaryTold: summary => stateItem.draw(summary)
    });
    panel.title.icon = icon;
    panel.title.caption = 'Remote datasets';
    app.shell.add(panel, 'left', { rank: 600, type: 'Remote datasets' });
    restorer?.add(panel, panel.id);

    const addTab = (path: string, name?: string): MainAreaWidget<ViewerTab> => {
      const content = new ViewerTab(transport, path, app.restored, name);
      content.title.icon = icon;
      const tab = new MainAreaWidget({ content });
      tab.toolbar.hide();
      content.onPath = () => void viewers.save(tab);
      void viewers.add(tab);
      app.shell.add(tab, 'main');
      return tab;
    };

    app.commands.addCommand(Commands.show, {
      label: args => (args.isLauncher === true ? 'Remote datasets' : 'Show Remote Datasets'),
      caption: 'Browse remote arrays, look at them, and insert code that opens them',
      icon: args => (args.isPalette === true ? undefined : icon),
      execute: () => app.shell.activateById(panel.id)
    });
    app.commands.addCommand(Commands.open, {
      label: args => (args.newTab === true ? 'Open Remote Dataset in a New Tab' : 'Open Remote Dataset'),
      execute: async args => {
        const path = String(args.path ?? '');
        if (labShell === null) {
          // Other applications have one document to a page.
          window.open(`${URLExt.join(server.baseUrl, 'caterva2')}/#/${path.split('/').map(encodeURIComponent).join('/')}`, '_blank');
          return;
        }
        let tab = args.newTab === true || opensNewTabs ? null : viewers.currentWidget;
        if (tab !== null && tab.isAttached) {
          tab.content.open(path);
          void viewers.save(tab);
        } else {
          tab = addTab(path, typeof args.name === 'string' ? args.name : undefined);
        }
        if (args.activate !== false) {
          app.shell.activateById(tab.id);
        }
      }
    });
    app.commands.addCommand(Commands.state, {
      label: 'Show Running State of Remote Data',
      caption: 'What the cache holds and saved, and which connections stand',
      isEnabled: () => labShell !== null,
      execute: () => {
        let tab = states.currentWidget;
        if (tab === null || tab.isDisposed) {
          const content = new StateTab(transport, root => {
            app.shell.activateById(panel.id);
            void panel.browser.reveal(root);
          });
          content.title.icon = icon;
          tab = new MainAreaWidget({ content });
          tab.id = 'caterva2-state-tab';
          tab.toolbar.hide();
          void states.add(tab);
          app.shell.add(tab, 'main');
        }
        app.shell.activateById(tab.id);
      }
    });
    app.commands.addCommand(Commands.refresh, {
      label: 'Refresh Remote Datasets',
      execute: () => panel.browser.refresh()
    });
    for (const command of [Commands.show, Commands.state, Commands.refresh]) {
      palette?.addItem({ command, category: CATEGORY, args: { isPalette: true } });
    }
    launcher?.add({ command: Commands.show, category: 'Other', rank: 5, args: { isLauncher: true } });

    void restorer?.restore(viewers, {
      command: Commands.open,
      args: tab => ({ path: tab.content.path, name: tab.content.id, newTab: true, activate: false }),
      // The layout knows tabs by name, and is not saved when a tab shows another path: names have nothing of the path.
      name: tab => tab.content.id
    });
    // A tab that a saved layout has no place for would be there unseen.
    void app.restored.then(() => viewers.filter(tab => !tab.isAttached).forEach(tab => tab.dispose()));
    void restorer?.restore(states, { command: Commands.state, name: () => 'state' });

    if (statusBar !== null) {
      statusBar.registerStatusItem('caterva2-jupyter:state', {
        item: stateItem,
        align: 'right',
        rank: 300
      });
    }

    themes?.themeChanged.connect(() => viewers.forEach(tab => tab.content.setTheme(themeNow())));

    settings
      ?.load(PLUGIN_ID)
      .then(loaded => {
        const apply = (): void => {
          opensNewTabs = loaded.get('openInNewTab').composite === true;
          panel.browser.setCodeVariant(loaded.get('code').composite as CodeVariant);
        };
        loaded.changed.connect(apply);
        apply();
      })
      .catch(reason => console.warn('caterva2: its settings cannot be read; the defaults hold', reason));
  }
};

export default plugin;
