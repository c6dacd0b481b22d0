// JupyterLab's plugin: the panel of remote arrays.
import { JupyterFrontEnd, JupyterFrontEndPlugin } from '@jupyterlab/application';
import { JupyterTransport } from './jupyterTransport';

const plugin: JupyterFrontEndPlugin<void> = {
  id: 'caterva2-jupyter:plugin',
  description: 'A panel of remote arrays.',
  autoStart: true,
  activate: (app: JupyterFrontEnd) => {
    void new JupyterTransport(app.serviceManager.serverSettings);
  }
};

export default plugin;
